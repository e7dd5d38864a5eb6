"""The clock of a code location."""

from functools import cache
from pathlib import Path

from cde_domain.clock import Clock, utc_now
from cde_serving.clock_file import ClockFile


@cache
def opened_clock(file: str | None) -> Clock:
    """
    The machine's clock, or the one that a file tells; one clock a file and process, which keeps its last instant.

    Raises:
        ClockFileError: the file tells no time.
    """
    return ClockFile(Path(file)) if file else utc_now
