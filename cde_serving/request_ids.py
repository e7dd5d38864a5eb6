"""A name for each request, by which a caller finds the lines of the log that belong to it."""

import itertools
import os
import re

HEADER = b"x-request-id"

# Unique in all processes, without a system call a request.
_PROCESS = os.urandom(12).hex()
_NEW = (f"{_PROCESS}{number:08x}" for number in itertools.count())

_SANE = re.compile(rb"[A-Za-z0-9._\-]{1,64}")


def request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """The caller's `X-Request-ID` if it is 1 to 64 letters, digits, dots, dashes or underscores; else a new one."""
    for name, value in headers:
        if name == HEADER and _SANE.fullmatch(value):
            return value.decode("ascii")
    return next(_NEW)
