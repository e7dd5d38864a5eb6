"""Random bytes of the operating system, drawn many at a time."""

import os
import threading

DRAWN = 4096


class _Drawn(threading.local):
    """
    What one thread has drawn and not yet used.

    Every system call for random bytes lets another thread run, and the decision waits for its turn to come again.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._bytes = b""
        self._used = 0

    def take(self, count: int) -> bytes:
        first, last = self._used, self._used + count
        if last > len(self._bytes):
            self._bytes = os.urandom(DRAWN)
            first, last = 0, count
        self._used = last
        return self._bytes[first:last]


_drawn = _Drawn()
os.register_at_fork(after_in_child=_drawn.forget)  # parent and child would use the same bytes


def random_bytes(count: int) -> bytes:
    """So many random bytes, at most `DRAWN`, never given twice."""
    return _drawn.take(count)
