"""The small portfolio and what is made of it, once for all tests of the domain."""

from pathlib import Path

import pytest

from cde_domain.decisions.engine import DecisionEngine
from cde_domain.portfolio import Portfolio
from cde_domain.release import load_bundle
from tests.support import TinyLoans, write_tiny_bundle, write_tiny_loans


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLoans:
    return write_tiny_loans(tmp_path_factory.mktemp("lender"))


@pytest.fixture(scope="session")
def lending(tiny: TinyLoans) -> Portfolio:
    return tiny.portfolio


@pytest.fixture(scope="session")
def tiny_bundle(tiny: TinyLoans, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released bundle; tests that change one work on a copy."""
    return write_tiny_bundle(tiny, tmp_path_factory.mktemp("models"), seed=1)


@pytest.fixture(scope="session")
def tiny_engine(tiny_bundle: Path) -> DecisionEngine:
    return load_bundle(tiny_bundle, tiny_bundle.name).engine
