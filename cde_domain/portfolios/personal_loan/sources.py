"""The raw tables of a personal loan book, and how they join into one row per application."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.application import ColumnSpec, columns_of
from cde_domain.portfolio import Source

from .application import PersonalLoanApplication
from .options import SimulationOptions

STATEMENT_MONTHS = 6


def _read(table: str, dated: str) -> Callable[[SimulationOptions], Iterator[pd.DataFrame]]:
    def read(options: SimulationOptions) -> Iterator[pd.DataFrame]:
        from .simulator import simulate  # PyArrow with it, which the scoring service does without

        for block in simulate(options):
            rows = getattr(block, table)
            yield rows[rows[dated] <= pd.Timestamp(options.as_of)].reset_index(drop=True)

    return read


SOURCES = tuple(
    Source(name, description, _read(name, dated))
    for name, dated, description in (
        ("applications", "applied_at", "What applicants stated, one row per application"),
        (
            "bureau_reports",
            "pulled_at",
            "Bureau reports with their accounts and inquiries, as of the day they were pulled",
        ),
        ("bank_statements", "month_end", "Monthly bank statements, one row per customer and month"),
        (
            "kyc_records",
            "verified_at",
            "Identity records with date of birth and protected attributes, as of their verification",
        ),
        ("loan_outcomes", "known_at", "What became of each loan a year after its application"),
    )
)


def join(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """
    One row per application with what was known on its application date.

    The latest bureau report and KYC record dated on or before that day count, the statements of the six calendar
    months before its month, and the outcome whenever it became known.

    Raises:
        ValueError: a source or a column to join by is missing; the message names it.
    """
    book = _table(tables, "applications", "application_id", "customer_id", "applied_at").reset_index(drop=True)
    book["applied_at"] = _dates(book["applied_at"])
    reports = _table(tables, "bureau_reports", "customer_id", "pulled_at")
    kyc = _table(tables, "kyc_records", "customer_id", "verified_at")
    return pd.concat(
        [
            book,
            _as_of(book, reports, "pulled_at").add_prefix("credit_history."),
            _as_of(book, kyc, "verified_at"),
            _statements(book, tables),
            _outcomes(book, tables),
        ],
        axis="columns",
    )


def _table(tables: Mapping[str, pd.DataFrame], source: str, *keys: str) -> pd.DataFrame:
    if source not in tables:
        raise ValueError(f"the source {source} is missing")
    for key in keys:
        if key not in tables[source].columns:
            raise ValueError(f"the source {source} has no column {key}")
    return tables[source]


def _dates(series: pd.Series) -> pd.Series:
    return pd.to_datetime(series).astype("datetime64[ns]")


def _as_of(book: pd.DataFrame, records: pd.DataFrame, date: str) -> pd.DataFrame:
    """The customer's latest record dated on or before each application, without its keys."""
    dated = pd.DataFrame(
        {"customer_id": records["customer_id"].to_numpy(), "at": _dates(records[date]).to_numpy()}
    ).assign(position=np.arange(len(records)))
    latest = pd.merge_asof(
        book[["customer_id", "applied_at"]].dropna().sort_values("applied_at", kind="stable").reset_index(names="row"),
        dated.dropna().sort_values("at", kind="stable"),
        left_on="applied_at",
        right_on="at",
        by="customer_id",
    ).set_index("row")["position"]
    positions = latest.reindex(book.index).fillna(-1).to_numpy(dtype=np.int64)
    facts = records.drop(columns=["customer_id", date]).reset_index(drop=True)
    return facts.reindex(positions).set_axis(book.index)  # -1 is no row: all its values are missing


def _statements(book: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The statements of the six months before each application's month as a list, absent where there is none."""
    import pyarrow as pa

    from cde_domain.features.frame import arrow_type

    spec = next(column for column in columns_of(PersonalLoanApplication) if column.name == "bank_statements")
    keys = ("customer_id", *(item.name for item in spec.items))
    statements = _table(tables, "bank_statements", *keys).dropna(subset=["customer_id", "month_end"])
    chosen, numbers = _statement_positions(book, statements)
    struct: Any = arrow_type(spec).value_type
    items = pa.StructArray.from_arrays(
        [_items(statements[item.name], item, chosen) for item in spec.items], fields=list(struct)
    )
    offsets = pa.array(np.concatenate([[0], np.cumsum(numbers)]), type=pa.int32())
    lists = pa.ListArray.from_arrays(offsets, items, type=pa.list_(struct), mask=pa.array(numbers == 0))
    return pd.DataFrame({"bank_statements": pd.Series(pd.arrays.ArrowExtensionArray(lists), index=book.index)})


def _items(series: pd.Series, item: ColumnSpec, chosen: NDArray[np.int64]) -> Any:
    import pyarrow as pa

    from cde_domain.features.frame import arrow_type

    values = _dates(series).to_numpy().astype("datetime64[D]") if item.kind == "date" else series.to_numpy()
    return pa.array(values[chosen], type=arrow_type(item), from_pandas=True)


def _statement_positions(book: pd.DataFrame, statements: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which statements belong to the applications, application by application, and how many each one has."""
    customers = pd.Index(book["customer_id"].unique())
    month = _dates(statements["month_end"]).to_numpy().astype("datetime64[M]").astype(np.int64)
    applied_month = book["applied_at"].to_numpy().astype("datetime64[M]").astype(np.int64)
    # One number orders customers, and months within a customer.
    key = customers.get_indexer(statements["customer_id"]) * 10_000 + month
    application_key = customers.get_indexer(book["customer_id"]) * 10_000 + applied_month
    by_key = np.argsort(key, kind="stable")
    start = np.searchsorted(key[by_key], application_key - STATEMENT_MONTHS)
    numbers = np.maximum(np.searchsorted(key[by_key], application_key) - start, 0)
    before = np.cumsum(numbers) - numbers
    return by_key[np.repeat(start - before, numbers) + np.arange(numbers.sum())], numbers


def _outcomes(book: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    outcomes = _table(tables, "loan_outcomes", "application_id", "status", "known_at")
    latest = outcomes.sort_values("known_at", kind="stable").drop_duplicates("application_id", keep="last")
    found = latest.set_index("application_id").reindex(book["application_id"]).set_axis(book.index)
    return pd.DataFrame({"status": found["status"], "outcome_known_at": _dates(found["known_at"])})
