"""Moments as text."""

from datetime import UTC, datetime


def iso(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC with microseconds, which sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
