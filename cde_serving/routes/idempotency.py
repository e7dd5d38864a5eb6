"""Idempotency keys, and the answers about decisions that cannot be read back."""

from starlette.responses import Response

from cde_serving.decision_log import ErasedError, KeyInProgressError
from cde_serving.routes.responses import json_response

BAD_KEY = {"detail": "Idempotency-Key must be 1 to 255 visible ASCII characters"}
KEY_REUSED = {
    "field": "Idempotency-Key",
    "message": "Key was used for another request",
    "type": "idempotency_key_reused",
}


def no_answer(error: KeyInProgressError | ErasedError) -> Response:
    """Why a decision that was asked for before is not there to be read."""
    if isinstance(error, KeyInProgressError):
        return json_response(
            409, {"detail": "A request with this Idempotency-Key is being answered"}, {"retry-after": "1"}
        )
    return json_response(410, {"detail": str(error)})
