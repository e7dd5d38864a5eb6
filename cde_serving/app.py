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
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


def create_app(scorer: Scorer) -> ASGIApp:
    """The ASGI app over a scorer; whoever opened the scorer closes it."""
    routes: list[BaseRoute] = [
        Route(SCORE, Score(scorer), methods=["POST"]),
        *Batch(scorer).routes,
        *Decisions(scorer).routes,
        *Explanations(scorer).routes,
        *FollowUpRoutes(scorer, scorer.follow_ups).routes,
        *Notices(scorer).routes,
        *Probes(scorer).routes,
        *Docs(scorer).routes,
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _http_error, Exception: _internal_error}
    return _Observed(Starlette(routes=routes, exception_handlers=handlers), routes, scorer)


class _Observed:
    """Counts and times every request, and is where an unexpected exception, already answered with 500, ends."""

    def __init__(self, app: ASGIApp, routes: list[BaseRoute], scorer: Scorer) -> None:
        self._app = app
        self._routes = routes
        self._metrics = scorer.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        route = self._route(scope)  # now: a mounted app changes the scope
        status = 0  # until an answer begins; it never does (499) if the client leaves or the time limit passes

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
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
        finally:
            self._metrics.answered(route, status or 499, time.perf_counter() - started)

    def _route(self, scope: Scope) -> str:
        if scope["path"] == SCORE:
            return SCORE
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", "other"))
        return "other"


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json_response(error.status_code, {"detail": error.detail}, error.headers)


async def _internal_error(_: Request, __: Exception) -> Response:
    return json_response(500, {"detail": "Internal error"})
