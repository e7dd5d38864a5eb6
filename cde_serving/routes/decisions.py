"""Reading decisions back."""

import asyncio
import re
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from cde_serving.access.admission import caller_of
from cde_serving.access.routes import GuardedRoute
from cde_serving.decision_log import Record
from cde_serving.idempotency import BadKeyError
from cde_serving.routes.idempotency import BAD_KEY, idempotency_key
from cde_serving.routes.refusals import NO_DECISION, REFUSALS, refusal
from cde_serving.routes.responses import json_response, raw_response
from cde_serving.scorer import Scorer

DECISIONS = "/api/v1/credit/decisions"
DECISION = DECISIONS + "/{decision_id}"

_DECISION_ID = re.compile(r"[0-9a-f]{32}")


def is_decision_id(text: str) -> bool:
    """Whether a text can be the id of a decision."""
    return _DECISION_ID.fullmatch(text) is not None


class Decisions:
    """Recorded decisions, by id and by idempotency key."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.routes = (
            GuardedRoute(DECISIONS, self._by_key, needs="read"),
            GuardedRoute(DECISION, self._by_id, needs="read"),
        )

    async def _by_id(self, request: Request) -> Response:
        decision_id = request.path_params["decision_id"]
        if not is_decision_id(decision_id):
            return json_response(404, NO_DECISION)
        return await self._recorded(self._scorer.log.get, decision_id, caller_of(request.scope).tenant)

    async def _by_key(self, request: Request) -> Response:
        try:
            key = idempotency_key(request.scope)
        except BadKeyError:
            key = None
        if key is None:
            return json_response(400, BAD_KEY)
        return await self._recorded(self._scorer.log.find, key, caller_of(request.scope).tenant)

    async def _recorded(self, find: Callable[[str, str], Record | None], name: str, tenant: str) -> Response:
        try:
            record = await asyncio.to_thread(find, name, tenant)
        except REFUSALS as error:
            return refusal(error, self._scorer)
        return raw_response(200, record.payload.answer) if record else json_response(404, NO_DECISION)
