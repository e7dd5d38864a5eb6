"""Stage loan_book: one raw asset per source, and the validated book with one row per application."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import dagster as dg
import pandas as pd

from cde_assets.metadata import OWNERS, describe_columns, problem_table
from cde_domain.loan_book import LoanBookError, Problem, assemble
from cde_domain.portfolio import Portfolio, Source
from cde_resources.portfolio import PortfolioResource

GROUP = "loan_book"


def refusing(subject: str, work: Callable[[], Any]) -> Any:
    """Run `work`, and fail the run for good, naming columns and rows, if the loan book is unusable."""
    try:
        return work()
    except LoanBookError as error:
        raise dg.Failure(str(error), {"problems": problem_table(error.problems)}, allow_retries=False) from None
    except Exception as error:
        # Other errors of a reader or a join can quote values of the book, which are personal.
        problem = Problem(subject, f"cannot be read ({type(error).__name__})", 0)
        raise dg.Failure(
            f"{subject} cannot be read: {type(error).__name__}", {"problems": problem_table([problem])}
        ) from None


def raw_asset(source: Source) -> dg.AssetsDefinition:
    """The raw asset of a source: its rows as they come, chunk by chunk."""

    @dg.asset(name=source.name, group_name=GROUP, owners=OWNERS, kinds={"parquet"}, description=source.description)
    def raw(portfolio: PortfolioResource) -> Any:
        options = portfolio.options()
        return refusing(source.name, lambda: _chunks(source, source.read(options)))

    return raw


def _chunks(source: Source, rows: pd.DataFrame | Iterator[pd.DataFrame]) -> Any:
    if isinstance(rows, pd.DataFrame):
        if rows.empty:
            raise LoanBookError(f"source {source.name}", [Problem(source.name, "has no rows", 0)])
        return rows
    first = next(rows, None)
    if first is None:
        raise LoanBookError(f"source {source.name}", [Problem(source.name, "has no rows", 0)])
    return chain([first], rows)


def loan_book_asset(portfolio: Portfolio) -> dg.AssetsDefinition:
    """The loan book of a portfolio, joined from its sources."""

    @dg.asset(
        name="loan_book",
        group_name=GROUP,
        owners=OWNERS,
        kinds={"pandas", "pandera", "parquet"},
        ins={source.name: dg.AssetIn() for source in portfolio.sources},
        description="One validated row per application, as known on its application date, with its outcome if mature.",
    )
    def loan_book(
        context: dg.AssetExecutionContext, portfolio: PortfolioResource, **tables: pd.DataFrame
    ) -> pd.DataFrame:
        lending = portfolio.load()
        book = refusing("loan_book", lambda: assemble(lending, tables))
        known = book["repaid"].notna()
        context.add_output_metadata(
            {
                "applications": len(book),
                "with_known_outcome": int(known.sum()),
                "repayment_rate": float(book.loc[known, "repaid"].mean()),
                **_period(book),
            }
        )
        return describe_columns(book, lending)

    return loan_book


def _period(book: pd.DataFrame) -> dict[str, str]:
    dates = book["applied_at"].dropna()
    return (
        {"first_application": str(dates.min().date()), "last_application": str(dates.max().date())}
        if len(dates)
        else {}
    )


def loan_book_assets(portfolio: Portfolio) -> dict[str, dg.AssetsDefinition]:
    """All assets of this stage by name; they depend on the portfolio's sources."""
    raw = {source.name: raw_asset(source) for source in portfolio.sources}
    return {**raw, "loan_book": loan_book_asset(portfolio)}
