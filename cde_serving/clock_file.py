"""A clock that a file tells: tests and `make loop` let months pass in minutes with it."""

import os
from datetime import UTC, datetime
from pathlib import Path

import structlog

log = structlog.get_logger()

Signature = tuple[int, int, int] | None


class ClockFileError(ValueError):
    """A clock file that tells no time."""


class ClockFile:
    """
    The instant that a file holds; it stands still until the file holds another one, be it an earlier one.

    A file that is damaged or gone later leaves the last instant in force, and `problem` says so: falling back to the
    machine's time would mix two calendars in one log.

    Raises:
        ClockFileError: the file tells no time when the clock is opened.
    """

    def __init__(self, path: Path) -> None:
        self.problem: str | None = None
        self._path = path
        self._seen = self._signature()
        self._now = read_instant(path)

    def __call__(self) -> datetime:
        """The instant, aware and in UTC."""
        signature = self._signature()
        if signature != self._seen:
            self._seen = signature  # taken before the file is read: what is written meanwhile is seen the next time
            try:
                self._now = read_instant(self._path)
                self.problem = None
            except ClockFileError as error:
                self.problem = str(error)
                log.error("the clock file tells no time: the last instant stands", problem=self.problem)
        return self._now

    def _signature(self) -> Signature:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns


def read_instant(path: Path) -> datetime:
    """
    The instant in a clock file, in UTC.

    Raises:
        ClockFileError: it cannot be read, or holds anything but one ISO 8601 instant with its offset.
    """
    try:
        instant = datetime.fromisoformat(path.read_text(encoding="ascii").strip())
        if instant.tzinfo is None:
            raise ValueError("it has no offset")
        return instant.astimezone(UTC)
    except (OSError, ValueError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no instant like 2026-07-01T09:00:00+00:00"
        raise ClockFileError(
            f"CDE_CLOCK_FILE names {path}, which tells no time: {why}. Write one, or unset it to go by the real clock"
        ) from error


def write_instant(path: Path, instant: datetime) -> None:
    """Let a clock file tell an aware instant; readers see the one before or this one."""
    if instant.tzinfo is None:
        raise ValueError("an instant for a clock file needs an offset")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(instant.astimezone(UTC).isoformat() + "\n", encoding="ascii")
    beside.replace(path)
