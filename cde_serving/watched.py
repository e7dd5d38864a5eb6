"""A value that other processes may change, read again and again while the service runs."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger()

CLOSE_SECONDS = 2.0

T = TypeVar("T")


class Watched(Generic[T]):
    """
    What `read` returned last; a thread reads every `seconds`.

    When reading fails the last value stays, `problem` names the kind of error and `age` grows: whoever needs a fresh
    value asks for it and fails closed.
    """

    def __init__(self, name: str, read: Callable[[], T], seconds: float) -> None:
        self.problem: str | None = None
        self.value = read()
        self._name = name
        self._read = read
        self._seconds = seconds
        self._read_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)
        self._thread.start()

    @property
    def age(self) -> float:
        """Seconds since the value was last read."""
        return time.monotonic() - self._read_at

    def close(self) -> None:
        """Stop reading; a read that hangs ends with the process."""
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)

    def _follow(self) -> None:
        while not self._stop.wait(self._seconds):
            began = time.monotonic()
            try:
                self.value = self._read()
            except Exception as error:  # whatever the source raises, the last value stays
                if self.problem is None:
                    log.error("cannot be read", what=self._name, error=type(error).__name__)
                self.problem = type(error).__name__
            else:
                self._read_at = began
                self.problem = None
