"""The labels files of a portfolio, believed only if every row of every file fits a recorded decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path

import pandas as pd
from sqlalchemy.engine import Engine

from cde_domain.decisions.monitoring.labels import combined, labels_files, problem_of, read_labels
from cde_domain.digests import json_digest
from cde_domain.loan_book import LoanBookError
from cde_domain.portfolio import OutcomeLabel, Portfolio
from cde_serving.records.periods import Standing, day_of, standing

Seen = tuple[tuple[str, int, int], ...]  # name, size and time of change (ns) of each file


@dataclass(frozen=True)
class LabelRow:
    """The last that labels files say of a decision."""

    decision_id: str
    outcome: str
    known_on: date
    recorded_at: datetime  # when the file was last changed
    corrections: int


@dataclass(frozen=True)
class Labels:
    """What labels files say, by the day of the decision."""

    by_day: Mapping[date, list[LabelRow]]

    def digest(self, day: date) -> str:
        """A digest of what is said about a day's decisions, "" for nothing."""
        rows = self.by_day.get(day)
        return json_digest([[row.decision_id, row.outcome, row.known_on.isoformat()] for row in rows]) if rows else ""


def seen_files(home: Path) -> Seen:
    """The labels files as they are now: whatever changes one changes this, also that it is gone or leads nowhere."""
    return tuple((path.name, *_look(path)) for path in labels_files(home))


def _look(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:  # taken away since it was listed, or a link to nothing
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def said(home: Path, portfolio: Portfolio) -> Labels:
    """
    What the labels files say, not yet compared with the log.

    Raises:
        LoanBookError: a file is damaged, or two contradict each other.
    """
    return _said(home, seen_files(home), portfolio.outcome)


def believed(home: Path, portfolio: Portfolio, engine: Engine, today: date) -> tuple[Labels, Mapping[str, Standing]]:
    """
    What the labels files say, and what is known of each decision that they name.

    Raises:
        LoanBookError: as `said`, or a row names no decision, one that lent nothing, or a day that cannot be.
    """
    labels = said(home, portfolio)
    ids = [row.decision_id for rows in labels.by_day.values() for row in rows]
    known = standing(engine, portfolio.name, ids)
    for path in labels_files(home):
        _check(path, portfolio.outcome, known, today)
    return labels, known


def _check(path: Path, label: OutcomeLabel, known: Mapping[str, Standing], today: date) -> None:
    frame = read_labels(path, label)
    about = [known.get(decision_id) for decision_id in frame["decision_id"]]
    applied = pd.to_datetime(pd.Series([one.applied_at[:10] if one else None for one in about], dtype="string"))
    refused = pd.Series([one is not None and one.decision == "REJECTED" for one in about], dtype=bool)
    wrong = {
        ("decision_id", "no such decision is recorded"): pd.Series([one is None for one in about], dtype=bool),
        ("outcome", "nothing was lent: the decision stands as REJECTED"): refused,
        ("known_on", "the day lies before the application"): frame["known_on"] < applied,
        ("known_on", "the day lies in the future"): frame["known_on"] > pd.Timestamp(today),
    }
    problems = [problem_of(column, what, rows) for (column, what), rows in wrong.items() if rows.any()]
    if problems:
        raise LoanBookError(f"the labels file {path.name}", problems)


@lru_cache(maxsize=2)
def _said(home: Path, seen: Seen, label: OutcomeLabel) -> Labels:  # read again when a file changed
    changed = {name: datetime.fromtimestamp(nanoseconds / 1e9, UTC) for name, _, nanoseconds in seen}
    whole = combined([read_labels(path, label) for path in labels_files(home) if path.name in changed])
    by_day: dict[date, list[LabelRow]] = {}
    for row in whole.itertuples(index=False):
        known_on = row.known_on.date()
        found = LabelRow(row.decision_id, row.outcome, known_on, changed[row.file], int(row.corrections))
        by_day.setdefault(_day_of(row.decision_id, row.file, int(row.row)), []).append(found)
    return Labels(by_day)


def _day_of(decision_id: str, file: str, row: int) -> date:
    try:
        return day_of(decision_id)
    except ValueError:
        wrong = pd.Series([False] * (row - 1) + [True])
        what = "no id of a decision"
        raise LoanBookError(f"the labels file {file}", [problem_of("decision_id", what, wrong)]) from None
