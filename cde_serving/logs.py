"""The service's own log: one JSON object a line on standard output, without personal values."""

import contextlib
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType

import msgspec
import structlog

FRAMES = 5  # of a traceback, the innermost
BENTOML_HANDLER = "tracehandler"  # where the servers that `bentoml serve` starts write, and no other program

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Lines:
    """
    Writes lines to standard output; a line that cannot be written is lost.

    Whoever logs is often just handling a failure, and a full disk or a reader that has gone must not add another.
    """

    def msg(self, message: str) -> None:
        """Write one line."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            sys.stdout.write(message + "\n")  # one write, which `print` has not: lines of two threads do not mix
            sys.stdout.flush()

    debug = info = warning = error = critical = msg


def configure_logging(level: str) -> None:
    """Write structlog events of at least this level, and what libraries log, as JSON lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            lambda _, __, event: _encode(event).decode(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: Lines(),
        cache_logger_on_first_use=True,
    )
    take_over_servers_log()


def places(trace: TracebackType | None) -> list[str]:
    """
    Where an exception came from: file, line and function of the innermost frames.

    Neither its message nor local variables are logged anywhere: both may hold an applicant's values.
    """
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-FRAMES:]]


class JsonLines(logging.Formatter):
    """What a library logs, in the form of our own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object; of an exception its type and place."""
        line: dict[str, object] = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line |= {"error": record.exc_info[0].__name__, "at": places(record.exc_info[2])}
        at = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        return _encode({**line, "timestamp": at}).decode()


def take_over_servers_log() -> None:
    """Give what BentoML, circus and uvicorn log in a serving process the form of our own lines, one for each."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    for name in (None, *logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if any(known.name == BENTOML_HANDLER for known in logger.handlers):
            others = [known for known in logger.handlers if known.name != BENTOML_HANDLER]
            told_above = logger.propagate and logger.parent is not None  # BentoML gives loggers and the root one each
            logger.handlers[:] = others if told_above else [handler, *others]
