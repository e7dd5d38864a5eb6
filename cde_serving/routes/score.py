"""`POST /api/v1/credit/score`: one application in, one recorded decision out."""

from urllib.parse import parse_qsl

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cde_serving.access.admission import caller_of
from cde_serving.explanations import Explain
from cde_serving.idempotency import BadKeyError
from cde_serving.limits import MAX_BODY
from cde_serving.routes.idempotency import BAD_KEY, idempotency_key
from cde_serving.routes.refusals import REFUSALS, refusal
from cde_serving.routes.responses import json_response, read_body, refused_media, send_decision
from cde_serving.scorer import Scorer

EXPLAINED = {kind.value: kind for kind in (Explain.FULL, Explain.COUNTERFACTUAL)}
BAD_EXPLAIN = {"field": "explain", "message": f"Value is none of {', '.join(EXPLAINED)}", "type": "enum"}

SCORE = "/api/v1/credit/score"


class Score:
    """`POST /api/v1/credit/score`."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = await self._answer(scope, receive)
        if isinstance(answer, bytes):
            await send_decision(send, answer)
        else:
            await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> bytes | Response:
        headers = scope["headers"]
        if refused := refused_media(headers, "application"):
            return refused
        try:
            key = idempotency_key(scope)
        except BadKeyError:
            return json_response(400, BAD_KEY)
        explain = _explain(scope["query_string"]) if scope["query_string"] else Explain.PLAIN
        if explain is None:
            return json_response(422, {"detail": [BAD_EXPLAIN]})
        body = await read_body(receive, dict(headers).get(b"content-length", b"0"), MAX_BODY)
        if body is None:
            return json_response(413, {"detail": f"An application has at most {MAX_BODY} bytes"})
        try:
            return await self._scorer.score(body, idempotency_key=key, tenant=caller_of(scope).tenant, explain=explain)
        except REFUSALS as error:
            return refusal(error, self._scorer)


def _explain(query: bytes) -> Explain | None:
    """What a query string asks for, None if it is nothing that can be explained."""
    asked = [value for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if name == "explain"]
    return EXPLAINED.get(asked[0]) if len(asked) == 1 else (None if asked else Explain.PLAIN)
