"""What the UI shows of recorded days: counts, rates, and how they went."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cde_assets.metadata import picture
from cde_domain.decisions.monitoring.recorded import decisions_file, outcomes_file
from cde_domain.decisions.policy import Outcome
from cde_domain.digests import file_digest

PICTURED_DAYS = 60
COUNTED = ("variant", "decision", "decided_by", "score", "bundle")


def decisions_metadata(home: Path, day: date, *, last: date) -> dict[str, Any]:
    """A day's counts and rates; a picture of the days before with the last day of a run."""
    path = decisions_file(home, day)
    rows = pq.ParquetFile(path).read(columns=list(COUNTED)).to_pandas()
    answered = rows[rows["variant"] != "shadow"]
    shown: dict[str, Any] = {
        "dagster/partition_row_count": len(rows),
        "decisions": len(answered),
        "shadow_decisions": len(rows) - len(answered),
        "bundles": ", ".join(sorted({bundle[:12] for bundle in answered["bundle"]})),
        "path": dg.MetadataValue.path(str(path)),
        "sha256": file_digest(path),
    }
    if len(answered):
        for outcome in Outcome:
            shown[f"{outcome.lower()}_rate"] = float((answered["decision"] == outcome).mean())
        shown["fallback_rate"] = float((answered["decided_by"] == "fallback").mean())
        shown["challenger_rate"] = float((answered["variant"] == "challenger").mean())
    if answered["score"].notna().any():
        shown["mean_score"] = float(answered["score"].mean())
    if day == last and (counts := daily_counts(home, last)):
        from cde_assets import pictures  # matplotlib takes a second to import

        shown["days"] = picture(pictures.decisions_by_day(counts), f"Decisions by the day until {last}")
    return shown


def outcomes_metadata(home: Path, day: date) -> dict[str, Any]:
    """What is known of a day's loans."""
    path = outcomes_file(home, day)
    rows = pq.ParquetFile(path).read(columns=["outcome", "source", "corrections"]).to_pandas()
    shown: dict[str, Any] = {
        "dagster/partition_row_count": len(rows),
        "from_files": int((rows["source"] == "file").sum()),
        "corrected": int((rows["corrections"] > 0).sum()),
        "path": dg.MetadataValue.path(str(path)),
        "sha256": file_digest(path),
    }
    if len(rows):
        shown["repaid_rate"] = float((rows["outcome"] == "repaid").mean())
    return shown


def daily_counts(home: Path, last: date) -> list[tuple[date, int, int]]:
    """Day, answered decisions and approvals among them, of the recorded days until one."""
    counts = []
    for back in range(PICTURED_DAYS - 1, -1, -1):
        day = last - timedelta(days=back)
        try:
            rows: pd.DataFrame = (
                pq.ParquetFile(decisions_file(home, day)).read(columns=["variant", "decision"]).to_pandas()
            )
        except (OSError, pa.ArrowException):
            continue  # not recorded yet
        answered = rows[rows["variant"] != "shadow"]
        counts.append((day, len(answered), int((answered["decision"] == Outcome.APPROVED).sum())))
    return counts
