"""How records and moments are written."""

import os
from datetime import UTC, datetime


def iso(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC with microseconds, which sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def record_id_at(moment: datetime) -> str:
    """
    A new id, 32 hexadecimal digits: a UUID of version 7 (RFC 9562), 74 bits of it random.

    It begins with the time, so that the database's index grows at its end; random ones would rewrite it all over.
    """
    milliseconds = int(moment.timestamp() * 1000)
    bits = int.from_bytes(os.urandom(10))
    number = milliseconds << 80 | bits & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return f"{number:032x}"
