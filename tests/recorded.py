"""Applicants of the small portfolio, and the table that decisions about them leave behind."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cde_domain.decisions.engine import Decision
from cde_domain.decisions.monitoring.recorded import OUTCOMES, decisions_file, decisions_schema, outcomes_file

BUNDLE = "b" * 64
DAY = date(2026, 3, 1)
FEATURES = ("annual_income", "loan_to_income", "bureau_score", "total_balance", "loan_purpose")


def applicants(rows: int, seed: int) -> np.ndarray:
    """Feature rows, some beyond what training saw, some unknown."""
    random = np.random.default_rng(seed)
    score = np.where(random.random(rows) < 0.1, np.nan, random.uniform(290, 900, rows))
    income = random.lognormal(10.8, 0.9, rows)
    return np.column_stack(
        [income, random.uniform(0.0, 1.1, rows), score, random.exponential(9000, rows), random.integers(0, 3, rows)]
    ).astype(float)


def recorded(matrix: np.ndarray, decisions: list[Decision], **changes: Any) -> pd.DataFrame:
    """The table that such decisions leave behind."""
    rows = len(matrix)
    return pd.DataFrame(
        {
            "decision_id": [f"{number:032x}" for number in range(rows)],
            "tenant": "default",
            "customer": [f"token-{number}" for number in range(rows)],
            "applied_at": pd.Timestamp(datetime(2026, 3, 1, tzinfo=UTC)),
            "variant": "champion",
            "about": None,
            "bundle": BUNDLE,
            "model": "",
            "policy": "",
            "policy_version": "1",
            "code": "",
            "decision": [decision.decision.value for decision in decisions],
            "decided_by": [decision.decided_by.value for decision in decisions],
            "score": [np.nan if decision.score is None else decision.score for decision in decisions],
            "reason_codes": [np.array([*map(str, decision.reason_codes)], dtype=object) for decision in decisions],
            **{f"feature.{name}": matrix[:, position] for position, name in enumerate(FEATURES)},
            **changes,
        }
    )


def write_decisions(home: Path, table: pd.DataFrame, day: date = DAY) -> None:
    """Write a day's table where monitoring reads it."""
    protected = [name.removeprefix("protected.") for name in table if name.startswith("protected.")]
    schema = decisions_schema(FEATURES, protected)
    file = decisions_file(home, day)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(table, schema, preserve_index=False), file)


def write_outcomes(home: Path, table: pd.DataFrame, repaid: list[bool], day: date = DAY) -> None:
    """Write what became of the loans of a day's decisions."""
    known = table[["decision_id", "tenant", "customer", "applied_at"]].assign(
        outcome=["repaid" if one else "defaulted" for one in repaid],
        known_on=date(2026, 3, 10),
        recorded_at=pd.Timestamp(datetime(2026, 3, 10, tzinfo=UTC)),
        source="file",
        corrections=0,
    )
    file = outcomes_file(home, day)
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(known, OUTCOMES, preserve_index=False), file)
