"""Labels files: what became of loans, as a lender's own systems give it, beside what the outcome route was told."""

import re
import warnings
from pathlib import Path

import pandas as pd

from cde_domain.loan_book import EXAMPLE_ROWS, LoanBookError, Problem, read_table
from cde_domain.portfolio import OutcomeLabel

COLUMNS = ("decision_id", "outcome", "known_on")
DECISION_ID = re.compile(r"[0-9a-f]{32}")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
ENDINGS = (".csv", ".parquet")


def labels_files(home: Path) -> list[Path]:
    """The labels files of a portfolio's home, `labels/*.csv` and `*.parquet` (also in capitals), by name."""
    folder = home / "labels"
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in ENDINGS)


def read_labels(path: Path, label: OutcomeLabel) -> pd.DataFrame:
    """
    One labels file: `decision_id`, `outcome` (repaid or defaulted), `known_on` (datetime), each row's `file` and `row`.

    `outcome` may be written as the portfolio's label has it. A decision stands in a file once; a correction is a row of
    another file, known later.

    Raises:
        LoanBookError: a column is missing or there twice, a row is longer than the header, a value is none, a decision
            stands there twice; nothing of it can be used.
    """
    subject = f"the labels file {path.name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # otherwise a row that is too long is cut off
            given = read_table(path, may_be_empty=True, as_text=True)
    except LoanBookError as error:
        raise LoanBookError(subject, error.problems) from error
    except pd.errors.ParserWarning as error:
        raise LoanBookError(subject, [Problem(path.name, "a row has more cells than the header", 0)]) from error
    # Of two columns of one name, pandas calls the second name.1 in CSV.
    twice = [name for name in COLUMNS if (given.columns == name).sum() > 1 or f"{name}.1" in given]
    if twice:
        raise LoanBookError(subject, [Problem(name, "the column stands there twice", 0) for name in twice])
    if missing := [Problem(name, "the column is missing", 0) for name in COLUMNS if name not in given]:
        raise LoanBookError(subject, missing)
    ids = given["decision_id"].astype("string").fillna("").str.strip()
    words = {"repaid": "repaid", "defaulted": "defaulted", str(label.good): "repaid", str(label.bad): "defaulted"}
    outcomes = given["outcome"].astype("string").map(words)
    known_on, no_day = _days(given["known_on"])
    wrong = {
        ("decision_id", "no id of a decision"): ~ids.str.fullmatch(DECISION_ID.pattern),
        ("decision_id", "the decision stands there twice"): ids.duplicated(keep=False) & (ids != ""),
        ("outcome", f"none of {', '.join(words)}"): outcomes.isna(),
        ("known_on", "no day like 2026-03-31"): no_day,
    }
    problems = [problem_of(column, what, rows) for (column, what), rows in wrong.items() if rows.any()]
    if problems:
        raise LoanBookError(subject, problems)
    return pd.DataFrame(
        {
            "decision_id": ids.astype(object),
            "outcome": outcomes.astype(object),
            "known_on": known_on,
            "file": path.name,
            "row": range(1, len(given) + 1),
        }
    )


def combined(labels: list[pd.DataFrame]) -> pd.DataFrame:
    """
    The last that was known of each decision, over all files, with `corrections`: how many earlier ones it replaced.

    Raises:
        LoanBookError: two files say different things that became known on the same day.
    """
    whole = pd.concat(labels) if labels else pd.DataFrame(columns=[*COLUMNS, "file", "row"])
    whole = whole.sort_values(["decision_id", "known_on", "file"], ignore_index=True)
    whole = whole.drop_duplicates(["decision_id", "known_on", "outcome"], ignore_index=True)
    contradicting = whole.duplicated(["decision_id", "known_on"])
    if contradicting.any():
        file = whole.loc[contradicting, "file"].iloc[0]
        rows = whole.loc[contradicting & (whole["file"] == file), "row"].tolist()
        what = "another labels file has another outcome, known on the same day"
        problem = Problem("outcome", what, len(rows), tuple(sorted(rows)[:EXAMPLE_ROWS]))
        raise LoanBookError(f"the labels file {file}", [problem])
    whole["corrections"] = whole.groupby("decision_id").cumcount().astype(int)
    return whole.drop_duplicates("decision_id", keep="last", ignore_index=True)


def problem_of(column: str, what: str, rows: pd.Series) -> Problem:
    """A problem of the rows of a file, given as a mask in the file's order."""
    numbers = (rows.reset_index(drop=True).to_numpy().nonzero()[0] + 1).tolist()
    return Problem(column, what, len(numbers), tuple(numbers[:EXAMPLE_ROWS]))


def _days(given: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Days and which are none: text as ISO 8601, or dates of Parquet's."""
    text = given.astype("string")
    if pd.api.types.is_datetime64_any_dtype(given):
        text = given.dt.strftime("%Y-%m-%d").astype("string")
    days = pd.to_datetime(text.where(text.str.fullmatch(DAY.pattern)), format="%Y-%m-%d", errors="coerce")
    return days, days.isna()
