"""A deadline that holds however slowly the other side answers."""

import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

SECONDS = 10.0  # a delivery, from the look-up of the host's name to the last answer
CUT_SECONDS = 1.0

Result = TypeVar("Result")
Watch = Callable[[socket.socket], None]


def within(seconds: float, deliver: Callable[[Watch], Result]) -> Result:
    """
    Return what `deliver` returns, after so many seconds at most and one more in which it ends.

    A socket's own time-out begins anew with each byte that comes. `deliver` works in a thread and shows each connection
    to what it is called with; when time is over they are cut, so that it cannot deliver any more. What it did before
    the cut counts.

    Raises:
        TimeoutError: it did not end in time.
    """
    connections = _Connections()
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(deliver(connections.watch))
        except BaseException as error:  # raised again in the caller's thread
            done.set_exception(error)

    threading.Thread(target=run, name="delivery", daemon=True).start()
    wait([done], timeout=seconds)
    late = not done.done()
    connections.end()
    if late:
        wait([done], timeout=CUT_SECONDS)
        if not done.done() or done.exception():
            raise TimeoutError(f"not done in {seconds:g} s")
    return done.result()


class _Connections:
    """The connections of a delivery; of those that are shown after its end nothing is left either."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._ended = False

    def watch(self, connection: socket.socket) -> None:
        # A descriptor of our own: TLS takes the other one over, and closing it would not wake up who reads from it.
        with self._lock:
            self._open.append(connection.dup())
        if self._ended:
            self.end()

    def end(self) -> None:
        with self._lock:
            self._ended = True
            while self._open:
                with self._open.pop() as connection, contextlib.suppress(OSError):  # it may be closed already
                    connection.shutdown(socket.SHUT_RDWR)
