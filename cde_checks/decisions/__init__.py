"""Statements about what was decided, by the day; each file bears the name of the assets' file."""

from datetime import date

import dagster as dg

DAYS = dg.DailyPartitionsDefinition(start_date="2025-01-01", end_offset=1)  # today's applications are scored today
PARTITION = "dagster/partition"
FIRST, LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def days_of(run: dg.DagsterRun) -> tuple[date, date]:
    """The first and last day that a run is about, by its tags: a check of one partition is a preview in Dagster."""
    day = run.tags.get(PARTITION)
    first, last = (run.tags[tag] for tag in (FIRST, LAST)) if day is None else (day, day)
    return date.fromisoformat(first), date.fromisoformat(last)
