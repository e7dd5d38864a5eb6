"""What is seen of every request: its id on each line and answer, its count and time, and one line where it matters."""

import time
from collections.abc import Callable
from typing import Literal

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from cde_serving.access.headers import secured
from cde_serving.logs import places
from cde_serving.metrics import Metrics
from cde_serving.request_ids import HEADER, request_id
from cde_serving.routes.responses import INTERNAL_ERROR

AccessLog = Literal["problems", "all", "off"]

SLOW_SECONDS = 1.0
CLIENT_GONE = 499  # nginx's code for a client that left, or a time limit that passed, before an answer began

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_NOT_LET_IN = {401: "key", 403: "scope", 429: "rate"}

log = structlog.get_logger()


class Observed:
    """
    An app whose requests are named, counted, timed and logged, and whose answers bear every answer's headers.

    `route_of` gives the pattern of a request, never its path, which may hold a person's id. With `access_log`
    "problems" a line is written for what failed or was slow. An exception that was answered with 500 ends here.
    """

    def __init__(
        self, app: ASGIApp, route_of: Callable[[Scope], str], metrics: Metrics, access_log: AccessLog = "problems"
    ) -> None:
        self._app = app
        self._route_of = route_of
        self._metrics = metrics
        self._slow = {"problems": SLOW_SECONDS, "all": -1.0, "off": float("inf")}[access_log]
        self._failed = 400 if access_log != "off" else 1000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        route = self._route_of(scope)  # now: a mounted app changes the scope
        name = request_id(scope["headers"])
        bound = bind_contextvars(request_id=name)
        status = CLIENT_GONE

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = _named(message, name)
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        except Exception as error:
            log.error("request failed", error=type(error).__name__, at=places(error.__traceback__))
            if status == CLIENT_GONE:  # it happened before the layer that answers 500
                await INTERNAL_ERROR(scope, receive, observed_send)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.answered(route, method_of(scope), status, seconds)
            if status in _NOT_LET_IN:
                self._metrics.auth_failed(_NOT_LET_IN[status])
            if status >= self._failed or seconds > self._slow:
                _write_line(route, method_of(scope), status, seconds)
            reset_contextvars(**bound)


def method_of(scope: Scope) -> str:
    """The method of a request, "other" for those that callers make up."""
    return scope["method"] if scope["method"] in METHODS else "other"


def _named(message: Message, name: str) -> Message:
    return {**message, "headers": [*secured(message.get("headers", ())), (HEADER, name.encode("ascii"))]}


def _write_line(route: str, method: str, status: int, seconds: float) -> None:
    write = log.warning if status >= 500 else log.info
    write("request", route=route, method=method, status=status, milliseconds=round(seconds * 1000, 3))
