"""The HTTP surface of the scoring service, as one ASGI app: its paths and status codes are the contract."""

import time
import traceback
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cde_serving.access.admission import ROUTE, Admission
from cde_serving.access.headers import secured
from cde_serving.access.routes import Guarded, GuardedRoute, RouteTable
from cde_serving.routes.batch import Batch
from cde_serving.routes.decisions import Decisions
from cde_serving.routes.docs import Docs
from cde_serving.routes.explanations import Explanations
from cde_serving.routes.follow_ups import FollowUpRoutes
from cde_serving.routes.notices import Notices
from cde_serving.routes.probes import Probes
from cde_serving.routes.responses import json_response
from cde_serving.routes.score import SCORE, Score
from cde_serving.scorer import Scorer

log = structlog.get_logger()

_INTERNAL_ERROR = json_response(500, {"detail": "Internal error"})


def create_app(scorer: Scorer) -> ASGIApp:
    """
    The ASGI app over a scorer; whoever opened the scorer closes it.

    Raises:
        UnguardedRouteError: a route does not say who may ask it.
    """
    routes = routes_of(scorer)
    table = RouteTable([*routes, *Docs(scorer, routes).routes])
    handlers: Mapping[Any, Any] = {HTTPException: _http_error, Exception: _internal_error}
    app = Starlette(routes=table.routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # the address to go to would be built from the sender's Host header
    return _Observed(Admission(app, scorer.keys, scorer.rates), table, scorer)


def routes_of(scorer: Scorer) -> list[Guarded]:
    """The routes that the documentation tells of."""
    return [
        GuardedRoute(SCORE, Score(scorer), needs="score", methods=["POST"]),
        *Batch(scorer).routes,
        *Decisions(scorer).routes,
        *Explanations(scorer).routes,
        *FollowUpRoutes(scorer, scorer.follow_ups).routes,
        *Notices(scorer).routes,
        *Probes(scorer).routes,
    ]


class _Observed:
    """Counts and times every request, and is where an unexpected exception, already answered with 500, ends."""

    def __init__(self, app: ASGIApp, table: RouteTable, scorer: Scorer) -> None:
        self._app = app
        self._table = table
        self._metrics = scorer.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        found = scope[ROUTE] = self._table.find(scope)  # now: a mounted app changes the scope
        status = 0  # until an answer begins; it never does (499) if the client leaves or the time limit passes

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": secured(message.get("headers", ()))}
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        except Exception as error:
            # Neither the message nor local variables are logged: both may hold an applicant's values.
            frames = traceback.extract_tb(error.__traceback__)[-5:]
            log.error(
                "request failed",
                error=type(error).__name__,
                at=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            )
            if not status:  # it happened before the layer that answers 500
                await _INTERNAL_ERROR(scope, receive, observed_send)
        finally:
            self._metrics.answered(found.pattern, status or 499, time.perf_counter() - started)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json_response(error.status_code, {"detail": error.detail}, error.headers)


async def _internal_error(_: Request, __: Exception) -> Response:
    return _INTERNAL_ERROR
