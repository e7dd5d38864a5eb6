"""The loan book: one validated row per application, as known on its application date."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet

from cde_domain.application import ColumnSpec, columns_of
from cde_domain.features.frame import arrow_type
from cde_domain.portfolio import Portfolio, UnknownCategoryError

PROTECTED_PREFIX = "protected."
EXAMPLE_ROWS = 5


@dataclass(frozen=True)
class Problem:
    """What is wrong with one column: how many rows, and the numbers of some (from 1; never their values)."""

    column: str
    what: str
    count: int
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = (
            f" (rows {', '.join(map(str, self.rows))}{', ...' if self.count > len(self.rows) else ''})"
            if self.rows
            else ""
        )
        return (
            f"{self.column}: {self.what}, {self.count} of them{where}" if self.count else f"{self.column}: {self.what}"
        )


class LoanBookError(ValueError):
    """A loan book that cannot be used; `problems` say which columns and rows."""

    def __init__(self, subject: str, problems: list[Problem]) -> None:
        super().__init__("\n".join([f"{subject} cannot be used:", *(f"  - {problem}" for problem in problems)]))
        self.problems = problems


def read_table(path: Path, *, may_be_empty: bool = False, as_text: bool = False) -> pd.DataFrame:
    """
    Read a CSV or Parquet file; in CSV only empty cells are missing values, and with `as_text` all others are text.

    Raises:
        LoanBookError: the file is absent, neither CSV nor Parquet, or has no rows and may not be empty.
    """
    if not path.is_file():
        raise _unusable(path, "there is no such file")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        if head.startswith(b"PAR1"):
            frame = parquet_frame(path)
        elif b"\0" in head:
            raise _unusable(path, "is neither CSV nor Parquet")
        else:
            kinds = str if as_text else None
            frame = pd.read_csv(
                path, keep_default_na=False, na_values=[""], low_memory=False, index_col=False, dtype=kinds
            )
    except UnicodeDecodeError as error:
        raise _unusable(path, "is neither Parquet nor CSV in UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError, pyarrow.ArrowException) as error:
        raise _unusable(path, "is neither CSV nor Parquet") from error
    if not len(frame) and not may_be_empty:
        raise _unusable(path, "has no rows")
    if len(frame.columns) < 2:
        raise _unusable(path, "is neither CSV nor Parquet")
    return frame


def _unusable(path: Path, what: str) -> LoanBookError:
    return LoanBookError("the source file", [Problem(path.name, what, 0)])


def parquet_frame(path: Path) -> pd.DataFrame:
    """Read Parquet, keeping lists and records in Arrow's types."""
    return pyarrow.parquet.read_table(path).to_pandas(types_mapper=_nested_types)


def _nested_types(kind: pyarrow.DataType) -> pd.ArrowDtype | None:
    return pd.ArrowDtype(kind) if pyarrow.types.is_nested(kind) else None


def assemble(portfolio: Portfolio, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """
    Join raw tables into the loan book of a portfolio and validate it.

    The columns are `application_id`, `customer_id`, `applied_at` (NaT if undated), the application's columns,
    `repaid` (1, 0 or NaN while unknown), `outcome_known_at`, and `protected.<name>` for fairness analysis.

    Raises:
        LoanBookError: a column is missing or of the wrong type, an identifier is doubled, a category is unknown, ...
    """
    joined = portfolio.join(tables).reset_index(drop=True)
    label, problems = _repaid(portfolio, joined)
    columns = columns_of(portfolio.application)
    book = joined.reindex(columns=[column.name for column in columns])
    missing = [column.name for column in columns if column.name not in joined and column.name != "customer_id"]
    problems += [Problem(name, "the column is missing", 0) for name in missing]
    numbers = pd.Series([f"{portfolio.name}-{number:07d}" for number in range(1, len(joined) + 1)])
    book.insert(0, "application_id", joined.get("application_id", numbers))
    book["customer_id"] = joined.get("customer_id", book["application_id"])
    for name in ("applied_at", "outcome_known_at"):
        book[name] = joined.get(name, pd.Series(pd.NaT, index=joined.index, dtype="datetime64[ns]"))
        if portfolio.outcome.matures_after_days is not None and name not in joined:
            problems.append(Problem(name, "the column is missing, and outcomes of this portfolio need dates", 0))
            missing.append(name)
    book["repaid"] = label
    for attribute in portfolio.protected:
        try:
            groups = attribute.groups(joined)
        except KeyError as error:
            problems.append(Problem(str(error.args[0]), f"the column is missing ({attribute.name} needs it)", 0))
            continue
        except UnknownCategoryError as error:
            problems.append(_problem(error.column, f"the value belongs to no group of {attribute.name}", error.rows))
            continue
        except Exception as error:  # a portfolio's own code; what it says can quote the value
            what = f"the values cannot be grouped ({type(error).__name__}), are they of the right type?"
            problems.append(Problem(PROTECTED_PREFIX + attribute.name, what, len(joined)))
            continue
        if groups.isna().all():
            problems.append(Problem(PROTECTED_PREFIX + attribute.name, "every value is missing", len(joined)))
        book[PROTECTED_PREFIX + attribute.name] = groups.astype("object")
    book, found = validate(portfolio, book, skip=set(missing))
    problems += found
    if problems:
        raise LoanBookError(f"the loan book of {portfolio.name}", sorted(problems, key=lambda problem: problem.column))
    return book


def _repaid(portfolio: Portfolio, joined: pd.DataFrame) -> tuple[pd.Series, list[Problem]]:
    label = portfolio.outcome
    nothing = pd.Series(np.nan, index=joined.index)
    if label.column not in joined:
        return nothing, [Problem(label.column, "the outcome column is missing", 0)]
    raw = joined[label.column]
    repaid = nothing.mask(raw == label.good, 1.0).mask(raw == label.bad, 0.0)
    strange = raw.notna() & repaid.isna()
    problems = []
    if strange.any():
        problems.append(_problem(label.column, f"the outcome is neither {label.good!r} nor {label.bad!r}", strange))
    elif repaid.nunique() < 2:
        problems.append(Problem(label.column, "all known outcomes are the same, so there is nothing to learn", 0))
    return repaid, problems


def _problem(column: str, what: str, rows: pd.Series) -> Problem:
    numbers = np.flatnonzero(rows.to_numpy()) + 1
    return Problem(column, what, len(numbers), tuple(numbers[:EXAMPLE_ROWS].tolist()))


def schema_of(portfolio: Portfolio) -> pa.DataFrameSchema:
    """The pandera schema of a portfolio's loan book, written once in its application model."""
    columns: dict[str, pa.Column] = {"application_id": pa.Column(str, unique=True, coerce=True)}
    for spec in columns_of(portfolio.application):
        if spec.kind != "list":
            columns[spec.name] = _schema_column(spec)
    dated = portfolio.outcome.matures_after_days is not None
    columns["applied_at"] = pa.Column("datetime64[ns]", nullable=not dated, coerce=True)
    columns["outcome_known_at"] = pa.Column("datetime64[ns]", nullable=True, coerce=True)
    columns["repaid"] = pa.Column(float, pa.Check.isin([0.0, 1.0]), nullable=True)
    return pa.DataFrameSchema(columns, name=f"loan book of {portfolio.name}")


def _schema_column(spec: ColumnSpec) -> pa.Column:
    checks = []
    if spec.categories:
        checks.append(pa.Check.isin(spec.categories, error="a known category"))
    for limit, check, sign in (
        (spec.at_least, pa.Check.ge, ">="),
        (spec.above, pa.Check.gt, ">"),
        (spec.at_most, pa.Check.le, "<="),
        (spec.below, pa.Check.lt, "<"),
    ):
        if limit is not None:
            checks.append(check(limit, error=f"{sign} {limit:g}"))
    if spec.kind == "text":
        checks += _text_checks(spec)
    if spec.integer:
        checks.append(pa.Check(lambda values: values == np.floor(values), error="a whole number"))
    kinds = {"number": float, "flag": "boolean", "date": "datetime64[ns]"}
    return pa.Column(kinds.get(spec.kind, str), checks, nullable=not spec.required, coerce=True)


def _text_checks(spec: ColumnSpec) -> list[pa.Check]:
    checks = []
    if spec.pattern is not None:
        checks.append(pa.Check.str_matches(spec.pattern, error="of the declared form"))
    if spec.min_length or spec.max_length is not None:
        checks.append(pa.Check.str_length(spec.min_length, spec.max_length, error="of the declared length"))
    return checks


def validate(
    portfolio: Portfolio, book: pd.DataFrame, skip: Set[str] = frozenset()
) -> tuple[pd.DataFrame, list[Problem]]:
    """Validate a loan book, columns in `skip` aside; return it in its declared types, and the problems."""
    schema = schema_of(portfolio)
    schema = schema.remove_columns([name for name in skip if name in schema.columns])
    problems: list[Problem] = []
    lists: dict[str, pd.Series] = {}
    for spec in columns_of(portfolio.application):
        if spec.name in skip:
            continue
        if book[spec.name].isna().all():
            problems.append(Problem(spec.name, "every value is missing", len(book)))
        elif spec.kind == "list":
            lists[spec.name], found = _list_column(book[spec.name], spec)
            problems += found
    known = {problem.column for problem in problems}
    try:
        book = schema.validate(book, lazy=True)
    except pa.errors.SchemaErrors as errors:
        problems += [problem for problem in _problems(errors.failure_cases) if problem.column not in known]
    return book.assign(**lists), problems


_WHAT = {
    "not_nullable": "a value is missing",
    "field_uniqueness": "the value is not unique",
    "column_in_dataframe": "the column is missing",
}


def _problems(cases: pd.DataFrame) -> list[Problem]:
    problems: dict[tuple[str, str], Problem] = {}
    by_schema = cases["schema_context"] == "DataFrameSchema"
    named = cases["column"].where(
        ~by_schema | cases["column"].isin(cases.loc[~by_schema, "column"]), cases["failure_case"]
    )
    for (column, check), group in cases.assign(column=named).groupby(["column", "check"], sort=False):
        rows = sorted({int(row) + 1 for row in group["index"].dropna()})
        what = _WHAT.get(check, f"the value must be {check}")
        if check.startswith(("coerce_dtype", "dtype")):
            what = "the value is of the wrong type"
        problem = Problem(str(column), what, len(rows), tuple(rows[:EXAMPLE_ROWS]))
        problems.setdefault((problem.column, problem.what), problem)
    typed = {column for column, what in problems if what == "the value is of the wrong type"}
    return [
        problem
        for (column, what), problem in problems.items()
        if column not in typed or what == "the value is of the wrong type"
    ]


def _list_column(series: pd.Series, spec: ColumnSpec) -> tuple[pd.Series, list[Problem]]:
    kind = arrow_type(spec)
    try:
        array: Any = pyarrow.array(series, type=kind, from_pandas=True)
    except (pyarrow.ArrowException, TypeError, ValueError):
        return series, [Problem(spec.name, "the value is no list of records with the declared fields", len(series))]
    if isinstance(array, pyarrow.ChunkedArray):
        array = array.combine_chunks()
    problems = []
    rows = pc.list_parent_indices(array).to_numpy()
    for item in spec.items:
        wrong = _wrong_items(array.flatten().field(item.name), item)
        if wrong.any():
            numbers = np.unique(rows[wrong]) + 1
            what = "a category is unknown" if item.categories else "a value is missing or out of bounds"
            problems.append(
                Problem(f"{spec.name}.{item.name}", what, len(numbers), tuple(numbers[:EXAMPLE_ROWS].tolist()))
            )
    return pd.Series(pd.arrays.ArrowExtensionArray(array), index=series.index), problems


def _wrong_items(values: Any, spec: ColumnSpec) -> Any:
    null = values.is_null().to_numpy(zero_copy_only=False)
    wrong = null if spec.required else np.zeros(len(values), dtype=bool)
    if spec.categories:
        known = pc.is_in(values, value_set=pyarrow.array(spec.categories)).to_numpy(zero_copy_only=False)
        return wrong | (~known & ~null)
    if spec.kind == "number":
        numbers = values.to_numpy(zero_copy_only=False)
        inside = np.ones(len(numbers), dtype=bool)
        for limit, holds in (
            (spec.at_least, np.greater_equal),
            (spec.above, np.greater),
            (spec.at_most, np.less_equal),
            (spec.below, np.less),
        ):
            inside &= True if limit is None else holds(numbers, limit)
        if spec.integer:
            inside &= numbers == np.floor(numbers)
        return wrong | (~null & ~inside)
    return wrong


def immature(book: pd.DataFrame, days: int) -> pd.Series:
    """Rows whose outcome is stated before it can be known: earlier than `days` after the application."""
    age = (book["outcome_known_at"] - book["applied_at"]).dt.days
    return book["repaid"].notna() & ~(age >= days)
