"""A circuit breaker: whoever does not answer is not asked for a while, and then by one caller first."""

import time
from collections.abc import Callable

FAILURES = 5
OPEN_SECONDS = 5.0


class Breaker:
    """
    Opens after `failures` in a row; after `open_seconds` one caller may try, and its success closes it.

    It belongs to one event loop and has no lock.
    """

    def __init__(
        self,
        failures: int = FAILURES,
        open_seconds: float = OPEN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._in_a_row = 0
        self._asked_again_at = 0.0

    @property
    def open(self) -> bool:
        """Whether callers are turned away."""
        return self._in_a_row >= self._failures

    def admits(self) -> bool:
        """Whether this caller may ask; of an open breaker one does each `open_seconds`."""
        if not self.open:
            return True
        now = self._clock()
        if now < self._asked_again_at:
            return False
        self._asked_again_at = now + self._open_seconds  # also if the one who tries is never heard of again
        return True

    def answered(self) -> None:
        """Note that an answer came."""
        self._in_a_row = 0

    def failed(self) -> None:
        """Note that none came."""
        self._in_a_row += 1
        if self.open:
            self._asked_again_at = self._clock() + self._open_seconds
