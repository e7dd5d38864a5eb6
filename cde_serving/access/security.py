"""What the OpenAPI document says about keys, read from the routes themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

from cde_serving.access.routes import Guarded

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, made with `cde keys create`."},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}

_REFUSALS = {
    "401": "No API key, or one that is not known, was revoked or has expired",
    "429": "The key has used up its rate; Retry-After says when to ask again",
    "431": "The headers are too large",
    "504": "Not answered in time, and not known whether it was recorded: ask by Idempotency-Key, or once more",
    "503": "API keys cannot be checked at the moment; Retry-After says when to ask again",
}
_HEADERS = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}}},
    "429": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}},
    "504": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}},
}
_BODY_LATE = "The body did not come whole in time; nothing was recorded"


class UndocumentedRouteError(LookupError):
    """A route that the OpenAPI document does not describe."""


def describe(paths: Mapping[str, Any], routes: Sequence[Guarded], refusal: Mapping[str, Any]) -> None:
    """
    Add to each operation who may ask it and how others are answered; `refusal` is the content of such an answer.

    Raises:
        UndocumentedRouteError: the paths lack a route.
    """
    for route in routes:
        for method in sorted((route.methods or frozenset()) - {"HEAD"}):
            try:
                operation = paths[route.path][method.lower()]
            except KeyError:
                raise UndocumentedRouteError(f"{method} {route.path} is not in the OpenAPI document") from None
            _describe(operation, route.needs, refusal)


def _describe(operation: dict[str, Any], needs: str | None, refusal: Mapping[str, Any]) -> None:
    if needs is None:
        operation["security"] = []
        operation["responses"].setdefault("431", {"description": _REFUSALS["431"], "content": refusal})
        return
    operation["security"] = [{scheme: []} for scheme in SCHEMES]
    operation["description"] = f"Needs an API key with the scope `{needs}`."
    operation["x-scope"] = needs
    refusals = {**_REFUSALS, "403": f"The API key lacks the scope {needs}"}
    if "requestBody" in operation:
        refusals["408"] = _BODY_LATE
    for status, text in refusals.items():
        operation["responses"].setdefault(status, {"description": text, "content": refusal})
    for status, headers in _HEADERS.items():
        operation["responses"][status].setdefault("headers", headers)
    operation["responses"] = dict(sorted(operation["responses"].items()))
