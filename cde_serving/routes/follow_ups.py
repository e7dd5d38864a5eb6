"""What follows a decision: reviews, outcomes, and the history of both."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from cde_serving.access.admission import caller_of
from cde_serving.access.routes import GuardedRoute
from cde_serving.follow_ups import FollowUps, history
from cde_serving.idempotency import BadKeyError
from cde_serving.limits import MAX_BODY
from cde_serving.routes.decisions import DECISION, is_decision_id
from cde_serving.routes.idempotency import BAD_KEY, idempotency_key
from cde_serving.routes.refusals import NO_DECISION, REFUSALS, refusal
from cde_serving.routes.responses import json_response, raw_response, read_body, refused_media
from cde_serving.scorer import Scorer

REVIEW = DECISION + "/review"
OUTCOME = DECISION + "/outcome"
HISTORY = DECISION + "/history"

Taken = Callable[..., Awaitable[bytes]]


class FollowUpRoutes:
    """`POST .../review` and `.../outcome`, `GET .../history`."""

    def __init__(self, scorer: Scorer, follow_ups: FollowUps) -> None:
        self._scorer = scorer
        self._follow_ups = follow_ups
        self.routes = (
            GuardedRoute(REVIEW, self._review, needs="review", methods=["POST"]),
            GuardedRoute(OUTCOME, self._outcome, needs="score", methods=["POST"]),
            GuardedRoute(HISTORY, self._history, needs="read"),
        )

    async def _review(self, request: Request) -> Response:
        return await self._taken_in(request, self._follow_ups.review)

    async def _outcome(self, request: Request) -> Response:
        return await self._taken_in(request, self._follow_ups.outcome)

    async def _taken_in(self, request: Request, take_in: Taken) -> Response:
        if refused := refused_media(request.scope["headers"], "body"):
            return refused
        try:
            key = idempotency_key(request.scope)
        except BadKeyError:
            return json_response(400, BAD_KEY)
        announced = request.headers.get("content-length", "0").encode("latin-1")
        body = await read_body(request.receive, announced, MAX_BODY)
        if body is None:
            return json_response(413, {"detail": f"The body has at most {MAX_BODY} bytes"})
        decision_id = request.path_params["decision_id"]
        if not is_decision_id(decision_id):
            return json_response(404, NO_DECISION)
        try:
            return raw_response(201, await take_in(decision_id, body, key=key, tenant=caller_of(request.scope).tenant))
        except REFUSALS as error:
            return refusal(error, self._scorer)

    async def _history(self, request: Request) -> Response:
        decision_id = request.path_params["decision_id"]
        try:
            if not is_decision_id(decision_id):
                return json_response(404, NO_DECISION)
            record = await asyncio.to_thread(self._scorer.log.get, decision_id, caller_of(request.scope).tenant)
            if record is None:
                return json_response(404, NO_DECISION)
            return json_response(200, history(record, await asyncio.to_thread(self._follow_ups.about, record)))
        except REFUSALS as error:
            return refusal(error, self._scorer)
