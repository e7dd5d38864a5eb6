"""`GET .../explanation?kind=full|counterfactual`: what takes longer, for a decision that is recorded."""

import asyncio

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cde_domain.release import Bundle
from cde_serving.access.admission import caller_of
from cde_serving.access.routes import GuardedRoute
from cde_serving.answers import Answer
from cde_serving.explanations import Explain
from cde_serving.records.record import Record
from cde_serving.routes.decisions import DECISION, is_decision_id
from cde_serving.routes.refusals import NO_DECISION, REFUSALS, refusal
from cde_serving.routes.responses import json_response
from cde_serving.routes.score import EXPLAINED
from cde_serving.scorer import Scorer
from cde_serving.shelf import BundleShelf, RetiredBundleError

EXPLANATION = DECISION + "/explanation"

BAD_KIND = {"field": "kind", "message": f"Value is none of {', '.join(EXPLAINED)}", "type": "enum"}

_answer = msgspec.json.Decoder(Answer).decode


class Explanations:
    """Explains recorded decisions from their recorded features and request, with the bundle that decided."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._shelf = BundleShelf(scorer.releases)
        self.routes = (GuardedRoute(EXPLANATION, self._explained, needs="read"),)

    async def _explained(self, request: Request) -> Response:
        explain = EXPLAINED.get(request.query_params.get("kind", ""))
        if explain is None:
            return json_response(422, {"detail": [BAD_KIND]})
        decision_id = request.path_params["decision_id"]
        if not is_decision_id(decision_id):
            return json_response(404, NO_DECISION)
        try:
            record, bundle = await asyncio.to_thread(self._found, decision_id, caller_of(request.scope).tenant)
            if record is None or bundle is None:
                return json_response(404, NO_DECISION)
            return await self._again(explain, record, bundle)
        except RetiredBundleError as error:
            return json_response(409, {"detail": str(error)})
        except REFUSALS as error:
            return refusal(error, self._scorer)

    def _found(self, decision_id: str, tenant: str) -> tuple[Record | None, Bundle | None]:
        record = self._scorer.log.get(decision_id, tenant)
        return record, self._shelf.get(record.versions.bundle) if record else None

    async def _again(self, explain: Explain, record: Record, bundle: Bundle) -> Response:
        payload = record.payload
        application = bundle.portfolio.application.model_validate_json(payload.request)
        explanation = await self._scorer.explainer.explain(
            explain, bundle, application, _answer(payload.answer), payload.features
        )
        return json_response(200, {"decision_id": record.record_id, "explanation": explanation})
