"""The applications of one day, scored together: the same bits as the service, in a table."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cde_domain.application import columns_of
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.explained import explained
from cde_domain.features.feature import feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.loan_book import LoanBookError, Problem, read_table, validate
from cde_domain.portfolio import Portfolio

SCORES = pa.schema(
    [
        ("application_id", pa.string()),
        ("customer_id", pa.string()),
        ("applied_on", pa.date32()),
        ("score", pa.float64()),
        ("decision", pa.string()),
        ("decided_by", pa.string()),
        ("reason_codes", pa.list_(pa.string())),
        ("bundle", pa.string()),
        ("policy_version", pa.string()),
    ]
)


def read_applications(portfolio: Portfolio, path: Path, day: date) -> pd.DataFrame:
    """
    The applications in a Parquet or CSV file, in the loan book's form: dotted column names, lists as Arrow lists.

    `application_id` is numbered where the file has none. A column that no application needs may be absent.

    Raises:
        LoanBookError: a column is missing, or a value is none that the application's model takes.
    """
    given = read_table(path, may_be_empty=True)
    specs = columns_of(portfolio.application)
    book = given.reindex(columns=[spec.name for spec in specs])
    numbers = pd.Series([f"{day.isoformat()}-{number:07d}" for number in range(1, len(given) + 1)], dtype=object)
    book.insert(0, "application_id", given.get("application_id", numbers))
    book["applied_at"] = pd.Timestamp(day)
    problems = [
        Problem(spec.name, "the column is missing", 0) for spec in specs if spec.required and spec.name not in given
    ]
    absent = {problem.column for problem in problems}
    if len(book) and not problems:
        absent = {spec.name for spec in specs if not spec.required and book[spec.name].isna().all()}
        book, problems = validate(portfolio, book, skip=absent | {"applied_at", "outcome_known_at", "repaid"})
    lists = [spec.name for spec in specs if spec.kind == "list" and spec.name in absent]
    book[lists] = book[lists].astype(object)  # Arrow takes no list from a column of NaN
    if problems:
        raise LoanBookError(f"the applications of {day}", sorted(problems, key=lambda problem: problem.column))
    return book


def score_applications(engine: DecisionEngine, book: pd.DataFrame, day: date, *, bundle: str) -> pa.Table:
    """Scores, decisions and reasons of a day's applications, in their order, with the columns of `SCORES`."""
    rows = len(book)
    if not rows:
        return SCORES.empty_table()
    specs = columns_of(engine.portfolio.application)
    matrix = feature_matrix(engine.portfolio.features, columns_of_frame(book, specs))
    decided = explained(engine, matrix)
    columns = [
        pa.array(book["application_id"].astype(str), pa.string()),
        pa.array(book["customer_id"].astype(str), pa.string()),
        pa.array([day] * rows, pa.date32()),
        pa.array(decided.scores, pa.float64(), mask=np.isnan(decided.scores)),
        pa.array(decided.decisions, pa.string()),
        pa.array(decided.decided_by, pa.string()),
        pa.array(decided.reason_codes, pa.list_(pa.string())),
        pa.array([bundle] * rows, pa.string()),
        pa.array([engine.policy.version] * rows, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=SCORES)


def write_scores(path: Path, scores: pa.Table) -> None:
    """Write a table of scores; the file appears whole or not at all, and the same scores are the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    pq.write_table(scores, unfinished)
    unfinished.replace(path)
