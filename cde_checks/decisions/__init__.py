"""Statements about what was decided, by the day; each file bears the name of the assets' file."""

import dagster as dg

DAYS = dg.DailyPartitionsDefinition(start_date="2025-01-01", end_offset=1)  # today's applications are scored today
PARTITION = "dagster/partition"
