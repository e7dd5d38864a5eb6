"""`POST /api/v1/credit/score`: one application in, one recorded decision out."""

import re
from dataclasses import asdict

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cde_serving.access.admission import caller_of
from cde_serving.applications import InvalidApplicationError
from cde_serving.decision_log import ErasedError, KeyInProgressError, KeyReusedError, LogBusyError, LogUnavailableError
from cde_serving.openapi import MAX_BODY
from cde_serving.routes.idempotency import BAD_KEY, is_key, no_answer
from cde_serving.routes.responses import json_response, raw_response, read_body
from cde_serving.scorer import NothingPromotedError, Scorer, nothing_promoted

SCORE = "/api/v1/credit/score"

_JSON_TYPE = re.compile(r"application/(?:json|[\w.\-]+\+json)\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)

_NOT_RECORDED = {"detail": "The decision could not be recorded, so it is not given"}
_KEY_REUSED = {
    "field": "Idempotency-Key",
    "message": "Key was used for another request",
    "type": "idempotency_key_reused",
}


class Score:
    """`POST /api/v1/credit/score`."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(scope, receive)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        headers = dict(scope["headers"])
        if not _JSON_TYPE.fullmatch(headers.get(b"content-type", b"").decode("latin-1")):
            return json_response(415, {"detail": "Send the application as application/json"})
        key = headers.get(b"idempotency-key")
        if key is not None and not is_key(key.decode("latin-1")):
            return json_response(400, BAD_KEY)
        body = await read_body(receive, headers.get(b"content-length", b"0"), MAX_BODY)
        if body is None:
            return json_response(413, {"detail": f"An application has at most {MAX_BODY} bytes"})
        return await self._decided(body, key.decode() if key else None, caller_of(scope).tenant)

    async def _decided(self, body: bytes, key: str | None, tenant: str) -> Response:
        try:
            return raw_response(200, await self._scorer.score(body, idempotency_key=key, tenant=tenant))
        except InvalidApplicationError as error:
            return json_response(422, {"detail": [asdict(problem) for problem in error.problems]})
        except NothingPromotedError:
            return json_response(503, nothing_promoted(self._scorer))
        except LogBusyError:
            return json_response(503, {"detail": "Too many decisions wait to be recorded"}, {"retry-after": "1"})
        except LogUnavailableError:
            return json_response(503, _NOT_RECORDED, {"retry-after": "5"})
        except KeyReusedError:
            return json_response(422, {"detail": [_KEY_REUSED]})
        except (KeyInProgressError, ErasedError) as error:
            return no_answer(error)
