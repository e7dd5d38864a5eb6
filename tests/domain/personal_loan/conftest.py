"""A simulated loan book, once for all tests of personal loans."""

import pandas as pd
import pytest

from cde_domain.features.table import feature_table
from cde_domain.loan_book import assemble
from cde_domain.portfolios.personal_loan import PORTFOLIO
from tests.domain.personal_loan.applications import OPTIONS


@pytest.fixture(scope="session")
def tables() -> dict[str, pd.DataFrame]:
    return {source.name: pd.concat(list(source.read(OPTIONS)), ignore_index=True) for source in PORTFOLIO.sources}


@pytest.fixture(scope="session")
def book(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return assemble(PORTFOLIO, tables)


@pytest.fixture(scope="session")
def table(book: pd.DataFrame) -> pd.DataFrame:
    return feature_table(PORTFOLIO, book)
