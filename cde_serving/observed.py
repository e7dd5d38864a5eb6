"""What is seen of every request: its id on each line and answer, its count and time, and one line where it matters."""

import time
from typing import Literal

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from cde_serving.access.admission import ROUTE
from cde_serving.access.headers import secured
from cde_serving.access.routes import RouteTable
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

log = structlog.get_logger()


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
            await self._other(scope, receive, send)
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
            await self._app(scope, receive, observed_send)
        except ClientDisconnect:  # nobody is left to be answered
            pass
        except Exception as error:
            log.error("request failed", error=type(error).__name__, at=places(error.__traceback__))
            if not status:  # it happened before the layer that answers 500
                await INTERNAL_ERROR(scope, receive, observed_send)
        finally:
            seconds = time.perf_counter() - started
            status = status or CLIENT_GONE
            self._metrics.answered(found.pattern, method_of(scope), status, seconds)
            if status in NOT_LET_IN:
                self._metrics.auth_failed(NOT_LET_IN[status])
            if status >= self._failed or seconds > self._slow:
                _write_line(found.pattern, method_of(scope), status, seconds)
            reset_contextvars(**bound)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on the start and end of the app; a WebSocket is refused with 403 before it opens."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # the wish to open it
            await send({"type": "websocket.close", "code": 1000})


def method_of(scope: Scope) -> str:
    """The method of a request, "other" for those that callers make up."""
    return scope["method"] if scope["method"] in METHODS else "other"


def _write_line(route: str, method: str, status: int, seconds: float) -> None:
    write = log.warning if status >= 500 else log.info
    write("request", route=route, method=method, status=status, milliseconds=round(seconds * 1000, 3))
