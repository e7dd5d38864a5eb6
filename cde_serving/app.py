"""The HTTP surface of the scoring service, as one ASGI app: its paths and status codes are the contract."""

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from cde_serving.access.admission import Admission
from cde_serving.access.routes import Guarded, GuardedRoute, RouteTable
from cde_serving.observed import GONE, INTERNAL_ERROR, AccessLog, Observed
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


def create_app(scorer: Scorer, access_log: AccessLog = "problems") -> ASGIApp:
    """
    The ASGI app over a scorer; whoever opened the scorer closes it.

    Raises:
        UnguardedRouteError: a route does not say who may ask it.
    """
    routes = routes_of(scorer)
    table = RouteTable([*routes, *Docs(scorer, routes).routes])
    handlers: Mapping[Any, Any] = {
        HTTPException: _http_error,
        ClientDisconnect: _client_gone,
        Exception: _internal_error,
    }
    app = Starlette(routes=table.routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # the address to go to would be built from the sender's Host header
    return Observed(Admission(app, scorer.keys, scorer.rates), table, scorer.metrics, access_log)


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


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json_response(error.status_code, {"detail": error.detail}, error.headers)


async def _client_gone(_: Request, __: Exception) -> Response:
    return GONE


async def _internal_error(_: Request, __: Exception) -> Response:
    return INTERNAL_ERROR
