"""The HTTP surface of the scoring service, as one ASGI app: its paths and status codes are the contract."""

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Scope

from cde_serving.observed import AccessLog, Observed
from cde_serving.routes.decisions import Decisions
from cde_serving.routes.docs import Docs
from cde_serving.routes.probes import Probes
from cde_serving.routes.responses import json_response
from cde_serving.routes.score import SCORE, Score
from cde_serving.scorer import Scorer


def create_app(scorer: Scorer, access_log: AccessLog = "problems") -> ASGIApp:
    """The ASGI app over a scorer; whoever opened the scorer closes it."""
    routes: list[BaseRoute] = [
        Route(SCORE, Score(scorer), methods=["POST"]),
        *Decisions(scorer).routes,
        *Probes(scorer).routes,
        *Docs(scorer).routes,
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _http_error, Exception: _internal_error}
    app = Starlette(routes=routes, exception_handlers=handlers)

    def route_of(scope: Scope) -> str:
        if scope["path"] == SCORE:
            return SCORE
        for route in routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", "other"))
        return "other"

    return Observed(app, route_of, scorer.metrics, access_log)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json_response(error.status_code, {"detail": error.detail}, error.headers)


async def _internal_error(_: Request, __: Exception) -> Response:
    return json_response(500, {"detail": "Internal error"})
