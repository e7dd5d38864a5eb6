"""Decisions and outcomes by the day, as monitoring reads them: columns, files, readers, and what is mature."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.loan_book import PROTECTED_PREFIX

FEATURE_PREFIX = "feature."
MOMENT = pa.timestamp("us", tz="UTC")

DECISION_COLUMNS = (
    ("decision_id", pa.string()),
    ("tenant", pa.string()),
    ("customer", pa.string()),  # the token, by which an erasure finds the row
    ("applied_at", MOMENT),
    ("variant", pa.string()),  # champion, challenger or shadow
    ("about", pa.string()),  # of a shadow: the decision that was answered
    ("bundle", pa.string()),
    ("model", pa.string()),
    ("policy", pa.string()),
    ("policy_version", pa.string()),
    ("code", pa.string()),
    ("decision", pa.string()),
    ("decided_by", pa.string()),
    ("score", pa.float64()),
    ("reason_codes", pa.list_(pa.string())),
)

OUTCOMES = pa.schema(
    [
        ("decision_id", pa.string()),
        ("tenant", pa.string()),
        ("customer", pa.string()),
        ("applied_at", MOMENT),
        ("outcome", pa.string()),  # repaid or defaulted
        ("known_on", pa.date32()),
        ("recorded_at", MOMENT),
        ("source", pa.string()),  # route or file
        ("corrections", pa.int32()),  # how many earlier ones it replaced
    ]
)


class DamagedDayError(ValueError):
    """The file of a recorded day cannot be read; names it, and the way out."""


def decisions_schema(features: Sequence[str] = (), protected: Sequence[str] = ()) -> pa.Schema:
    """
    The columns of a day's decisions for a portfolio's features and protected attributes, by name.

    `feature.<name>` is float64 as the model's matrix has it: a category is its position, unknown is NaN.
    `protected.<name>` is text, null where it was not collected.
    """
    return pa.schema(
        [
            *DECISION_COLUMNS,
            *((FEATURE_PREFIX + name, pa.float64()) for name in features),
            *((PROTECTED_PREFIX + name, pa.string()) for name in protected),
        ]
    )


def decisions_file(home: Path, day: date) -> Path:
    """Where the decisions of a day are, below a portfolio's home."""
    return home / "decisions" / "recorded" / f"{day}.parquet"


def outcomes_file(home: Path, day: date) -> Path:
    """Where the outcomes of the decisions of a day are, whenever they became known."""
    return home / "decisions" / "outcomes" / f"{day}.parquet"


def read_decisions(home: Path, first: date, last: date) -> pd.DataFrame:
    """
    The decisions from one day to another, both included, shadow decisions (`variant`) among them.

    A day that was not read from the log yet is left out; without any, the frame is empty and has the columns that do
    not depend on the portfolio. `reason_codes` are arrays of text.

    Raises:
        DamagedDayError: a day's file is no Parquet, or cut off.
    """
    return _read((decisions_file(home, day) for day in days(first, last)), decisions_schema())


def read_outcomes(home: Path, first: date, last: date) -> pd.DataFrame:
    """
    The outcomes of the decisions from one day to another, both included, whenever they became known.

    Raises:
        DamagedDayError: a day's file is no Parquet, or cut off.
    """
    return _read((outcomes_file(home, day) for day in days(first, last)), OUTCOMES)


def last_recorded(home: Path, before: date) -> date:
    """
    The last day before another that was read from the log; the day before where none was.

    While days pass and are recorded in turn, a report about yesterday would look at days that are not there yet.
    """
    names = (file.stem for file in (home / "decisions" / "recorded").glob("[0-9]*.parquet"))
    recorded = [day for name in names if (day := date.fromisoformat(name)) < before]
    return max(recorded, default=before - timedelta(days=1))


def days(first: date, last: date) -> list[date]:
    """All days from one to another, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _read(files: Iterable[Path], schema: pa.Schema) -> pd.DataFrame:
    tables = [_table(file) for file in files if file.is_file()]
    whole = pa.concat_tables([schema.empty_table(), *tables], promote_options="default")
    return whole.to_pandas()


def _table(file: Path) -> pa.Table:
    try:
        return pq.ParquetFile(file).read()
    except (OSError, pa.ArrowException) as error:
        what = f"the file {file.parent.name}/{file.name} of a recorded day is damaged"
        raise DamagedDayError(f"{what}: materialise decisions and outcomes of {file.stem} again") from error


def labelled(
    decisions: pd.DataFrame, outcomes: pd.DataFrame, as_of: date, matures_after_days: int | None
) -> pd.DataFrame:
    """
    The answered decisions whose outcome counts as of a day, with `repaid` (bool) and the outcome's other columns.

    Only decisions that are `matures_after_days` old count, all of them alike: an early default among younger ones is
    known before the many repayments of the same days, so that counting it would show a loss rate that is not there.
    Where outcomes need no time to mature, each counts from the day on which it is known.
    """
    known = outcomes.loc[
        pd.to_datetime(outcomes["known_on"]) <= pd.Timestamp(as_of), ["decision_id", "outcome", "known_on"]
    ]
    applied_on = decisions["applied_at"].dt.tz_convert("UTC").dt.tz_localize(None).dt.normalize()
    old_enough = applied_on <= pd.Timestamp(as_of) - pd.Timedelta(days=matures_after_days or 0)
    mature = decisions[old_enough & (decisions["variant"] != "shadow")]
    joined = mature.merge(known, on="decision_id", validate="one_to_one")
    joined["repaid"] = (joined["outcome"] == "repaid").astype(bool)
    return joined


def feature_matrix_of(decisions: pd.DataFrame, features: Sequence[Feature]) -> NDArray[np.float64]:
    """
    The recorded features as the model took them, float64 of shape (rows, features), NaN for unknown.

    A feature that no decision has recorded, as one that is new in the portfolio, is unknown in all rows.
    """
    columns = [FEATURE_PREFIX + feature.name for feature in features]
    return np.ascontiguousarray(decisions.reindex(columns=columns).to_numpy(dtype=np.float64))
