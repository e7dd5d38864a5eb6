"""The idempotency key of a request, and what is told about one that cannot be used."""

from starlette.types import Scope

from cde_serving.idempotency import BadKeyError, is_key

BAD_KEY = {"detail": "Idempotency-Key must be given once, as 1 to 255 visible ASCII characters"}
KEY_REUSED = {
    "field": "Idempotency-Key",
    "message": "Key was used for another request",
    "type": "idempotency_key_reused",
}


def idempotency_key(scope: Scope) -> str | None:
    """
    The idempotency key that a request brings, if any.

    Raises:
        BadKeyError: it brings several, or one that cannot be used.
    """
    given = [value for name, value in scope["headers"] if name == b"idempotency-key"]
    if not given:
        return None
    key: str = given[0].decode("latin-1")
    if len(given) > 1 or not is_key(key):
        raise BadKeyError
    return key
