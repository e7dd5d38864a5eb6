"""What is seen of every request: its id on each line and answer, its count and time, and one line where it matters."""

import asyncio
import time
from typing import Literal

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from cde_serving.access.admission import ROUTE
from cde_serving.access.headers import secured
from cde_serving.access.routes import RouteTable
from cde_serving.limits import ANSWER_SECONDS
from cde_serving.logs import places
from cde_serving.metrics import Metrics
from cde_serving.request_ids import HEADER, request_id
from cde_serving.routes.responses import json_response

AccessLog = Literal["problems", "all", "off"]

SLOW_SECONDS = 1.0
CLIENT_GONE = 499  # nginx's code for a client that left, or a time limit that passed, before an answer began

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

NOT_LET_IN = {401: "key", 403: "scope", 429: "rate"}
INTERNAL_ERROR = json_response(500, {"detail": "Internal error"})
OUT_OF_TIME = json_response(
    504,
    {
        "detail": f"Not answered within {ANSWER_SECONDS:.0f} seconds. Whether it was recorded is not known: send the "
        "same request again under its Idempotency-Key, which records nothing twice. Of a single application "
        "GET /api/v1/credit/decisions with that key tells too"
    },
    {"retry-after": "1"},
)
BODY_LATE = json_response(
    408,
    {"detail": f"The body did not come whole within {ANSWER_SECONDS:.0f} seconds: nothing was recorded, send it again"},
    {"connection": "close"},
)
GONE = Response(status_code=CLIENT_GONE)

log = structlog.get_logger()


class OutOfTimeError(Exception):
    """No answer began within `ANSWER_SECONDS`."""


class BodyLateError(OutOfTimeError):
    """Nor had the body come whole, so that nothing was done."""


class Observed:
    """
    An app whose requests are named, counted, timed and logged; the outermost layer of ours.

    A request is told by the pattern of its route, never by its path, which may hold a person's id. With `access_log`
    "problems" a line is written for what failed or was slow. An exception that was answered with 500 ends here.
    """

    def __init__(self, app: ASGIApp, table: RouteTable, metrics: Metrics, access_log: AccessLog = "problems") -> None:
        self._app = app
        self._table = table
        self._metrics = metrics
        self._slow = {"problems": SLOW_SECONDS, "all": -1.0, "off": float("inf")}[access_log]
        self._failed = 400 if access_log != "off" else 1000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # the start and end of the app
            return
        started = time.perf_counter()
        found = scope[ROUTE] = self._table.find(scope)  # now: a mounted app changes the scope
        name = request_id(scope["headers"])
        bound = bind_contextvars(request_id=name)
        status = 0  # until an answer begins

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": secured([*message.get("headers", ()), (HEADER, name.encode("ascii"))])}
            await send(message)

        try:
            await _in_time(self._app, scope, receive, observed_send)
        except Exception as error:
            answer = _answer_to(error)
            if not status:  # or the layer that answers 500 has
                await answer(scope, receive, observed_send)
        finally:
            seconds = time.perf_counter() - started
            status = status or CLIENT_GONE
            self._metrics.answered(found.pattern, method_of(scope), status, seconds)
            if status in NOT_LET_IN:
                self._metrics.auth_failed(NOT_LET_IN[status])
            if status >= self._failed or seconds > self._slow:
                _write_line(found.pattern, method_of(scope), status, seconds)
            reset_contextvars(**bound)


async def _in_time(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """
    Let an app answer; how long the answer takes once it began is the client's affair.

    Raises:
        OutOfTimeError: no answer began in time.
    """
    deadline = asyncio.timeout(ANSWER_SECONDS)
    asked = whole = False  # for its body, of which every route awaits the end before it does anything

    async def received() -> Message:
        nonlocal asked, whole
        asked = True
        message = await receive()
        whole = not message.get("more_body", False)
        return message

    async def begun(message: Message) -> None:
        if message["type"] == "http.response.start":
            deadline.reschedule(None)
        await send(message)

    try:
        async with deadline:
            await app(scope, received, begun)
    except Exception:
        if deadline.expired():
            raise (BodyLateError if asked and not whole else OutOfTimeError) from None
        raise


def _answer_to(error: Exception) -> Response:
    """What is answered where an app raised an exception."""
    if isinstance(error, ClientDisconnect):
        return GONE  # nobody is left to read it: it is counted
    if isinstance(error, OutOfTimeError):
        return BODY_LATE if isinstance(error, BodyLateError) else OUT_OF_TIME
    log.error("request failed", error=type(error).__name__, at=places(error.__traceback__))
    return INTERNAL_ERROR


def method_of(scope: Scope) -> str:
    """The method of a request, "other" for those that callers make up."""
    return scope["method"] if scope["method"] in METHODS else "other"


def _write_line(route: str, method: str, status: int, seconds: float) -> None:
    write = log.warning if status >= 500 else log.info
    write("request", route=route, method=method, status=status, milliseconds=round(seconds * 1000, 3))
