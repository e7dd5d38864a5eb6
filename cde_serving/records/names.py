"""How records and moments are written."""

from datetime import UTC, datetime

from cde_serving.records.randomness import random_bytes


def iso(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC with microseconds, which sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def record_id_at(moment: datetime) -> str:
    """
    A new id, 32 hexadecimal digits: a UUID of version 7 (RFC 9562), 74 bits of it random.

    It begins with the time, so that the database's index grows at its end; random ones would rewrite it all over.
    """
    milliseconds = int(moment.timestamp() * 1000)
    bits = int.from_bytes(random_bytes(10))
    number = milliseconds << 80 | bits & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return f"{number:032x}"
