"""`POST /api/v1/credit/score/batch`: up to 1,000 applications in, an answer or an error for each out."""

import time

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from cde_serving.access.admission import Caller, caller_of
from cde_serving.access.rates import RateUsedUpError, TooManyAtOnceError
from cde_serving.access.routes import GuardedRoute
from cde_serving.applications import InvalidApplicationError, Problem
from cde_serving.batch import BatchScorer, OutOfTimeError
from cde_serving.idempotency import BadKeyError
from cde_serving.limits import MAX_BATCH_BODY
from cde_serving.routes.idempotency import BAD_KEY, idempotency_key
from cde_serving.routes.refusals import REFUSALS, refusal, told
from cde_serving.routes.responses import json_response, read_body, refused_media
from cde_serving.routes.score import SCORE
from cde_serving.scorer import Scorer

log = structlog.get_logger()

BATCH = SCORE + "/batch"

NOT_EXPLAINED = {
    "field": "explain",
    "message": "Applications of a batch are not explained: ask for the explanation of each decision",
    "type": "extra_forbidden",
}


NOT_REACHED = (
    "The batch ran out of time before this application: nothing was decided; send it again, under the same key"
)


class Batch:
    """`POST .../score/batch`."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._batches = BatchScorer(scorer)
        self.routes = (GuardedRoute(BATCH, self._answer, needs="score", methods=["POST"]),)

    async def _answer(self, request: Request) -> Response:
        began = time.monotonic()
        if refused := refused_media(request.scope["headers"], "applications"):
            return refused
        try:
            key = idempotency_key(request.scope)
        except BadKeyError:
            return json_response(400, BAD_KEY)
        if "explain" in request.query_params:
            return json_response(422, {"detail": [NOT_EXPLAINED]})
        announced = request.headers.get("content-length", "0").encode("latin-1")
        caller = caller_of(request.scope)
        try:
            with self._batches.place(caller.tenant):
                body = await read_body(request.receive, announced, MAX_BATCH_BODY)
                if body is None:
                    return json_response(413, {"detail": f"A batch has at most {MAX_BATCH_BODY} bytes"})
                results = await self._batches.score(
                    body,
                    idempotency_key=key,
                    tenant=caller.tenant,
                    admit=lambda count: self._charge(caller, count),
                    since=began,
                )
        except RateUsedUpError as error:
            return json_response(429, {"detail": str(error)}, {"retry-after": str(error.seconds)})
        except REFUSALS as error:
            return refusal(error, self._scorer)
        told_of = [self._told(index, result) for index, result in enumerate(results)]
        return json_response(200, {"answered": sum(one["status"] == 200 for one in told_of), "results": told_of})

    def _charge(self, caller: Caller, count: int) -> None:
        """Count each application as a request: a rate bounds decisions, however they are sent."""
        if caller.key is None:
            return
        try:
            self._scorer.rates.charge_rest(caller.key, count)
        except TooManyAtOnceError as error:  # never fits, so that waiting would not help
            raise InvalidApplicationError([Problem("applications", str(error), "batch_above_rate")]) from None

    def _told(self, index: int, result: bytes | Exception) -> dict[str, object]:
        if isinstance(result, bytes):
            return {"index": index, "status": 200, "answer": msgspec.Raw(result)}
        if isinstance(result, OutOfTimeError):
            return {"index": index, "status": 503, "detail": NOT_REACHED}
        if not isinstance(result, REFUSALS):
            log.error("an application of a batch failed", error=type(result).__name__)
            return {"index": index, "status": 500, "detail": "Internal error"}
        status, body, _ = told(result, self._scorer)
        return {"index": index, "status": status, **body}
