"""The layer before every route: who asks, may they, and not too often. What it cannot tell, it refuses."""

from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cde_serving.access.key_ring import KeyRing, KeysUnknownError
from cde_serving.access.keys import SCOPES, ApiKey
from cde_serving.access.rates import Rates
from cde_serving.access.routes import Found, Guarded, GuardedRoute
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.routes.responses import json_response

LARGEST_HEADERS = 16 * 1024  # bytes of names and values
ROUTE = "cde.route"  # what the request's ASGI scope holds under these names
CALLER = "cde.caller"

_CHALLENGE = 'Bearer realm="credit decisions"'
_NO_KEY = json_response(
    401, {"detail": "Send an API key: Authorization: Bearer KEY, or X-API-Key: KEY"}, {"www-authenticate": _CHALLENGE}
)
_BAD_KEY = json_response(
    401,
    {"detail": "The API key is not known, was revoked or has expired"},
    {"www-authenticate": f'{_CHALLENGE}, error="invalid_token"'},
)
_WRONG_SCOPE = {
    scope: json_response(
        403,
        {"detail": f"The API key lacks the scope {scope}"},
        {"www-authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'},
    )
    for scope in SCOPES
}
_KEYS_UNKNOWN = json_response(503, {"detail": "API keys cannot be checked at the moment"}, {"retry-after": "1"})
_NOTHING_HERE = json_response(404, {"detail": "Not Found"})
_LARGE_HEADERS = json_response(431, {"detail": f"The headers have more than {LARGEST_HEADERS} bytes"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the tenant whose decisions they may see, and their key (None where keys are switched off)."""

    tenant: str
    key: ApiKey | None


_ANYBODY = Caller(DEFAULT_TENANT, None)


def caller_of(scope: Scope) -> Caller:
    """
    Who asks, in a route that needs a key.

    Raises:
        KeyError: nobody was admitted, which admission does not let happen.
    """
    caller: Caller = scope[CALLER]
    return caller


class Admission:
    """Admits requests to an app: `keys` is None where authentication is switched off."""

    def __init__(self, app: ASGIApp, keys: KeyRing | None, rates: Rates) -> None:
        self._app = app
        self._keys = keys
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is not admitted; hand on one that is, with its caller."""
        refusal = await self._refusal(scope)
        await (refusal or self._direct(scope) or self._app)(scope, receive, send)

    def _direct(self, scope: Scope) -> ASGIApp | None:
        """The endpoint of a route that is an app itself: it needs none of the layers that find and wrap functions."""
        route = scope[ROUTE].route
        return route.endpoint if isinstance(route, GuardedRoute) and route.is_app else None

    async def _refusal(self, scope: Scope) -> Response | None:
        found: Found = scope[ROUTE]
        tokens, size = _tokens(scope)
        if size > LARGEST_HEADERS:
            return _LARGE_HEADERS
        route = found.route
        if route is None:
            return _no_route(found)
        if route.needs is None:
            return None
        if self._keys is None:
            scope[CALLER] = _ANYBODY
            return None
        if not tokens:
            return _NO_KEY
        if not self._keys.is_fresh:
            try:
                await self._keys.wait_until_fresh()
            except KeysUnknownError:
                return _KEYS_UNKNOWN
        key = self._keys.recognise(tokens[0]) if len(tokens) == 1 else None
        return _BAD_KEY if key is None else self._refusal_of(key, route, scope)

    def _refusal_of(self, key: ApiKey, route: Guarded, scope: Scope) -> Response | None:
        assert route.needs is not None
        if seconds := self._rates.wait(key):
            return json_response(429, {"detail": "The API key has used up its rate"}, {"retry-after": str(seconds)})
        if route.needs not in key.scopes:
            return _WRONG_SCOPE[route.needs]
        scope[CALLER] = Caller(key.tenant, key)
        return None


def _tokens(scope: Scope) -> tuple[list[bytes], int]:
    """The keys that the headers present, and how long the headers are together, in bytes."""
    tokens: list[bytes] = []
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name == b"authorization":
            tokens.append(value[7:].strip() if value[:7].lower() == b"bearer " else b"")
        elif name == b"x-api-key":
            tokens.append(value)
    return tokens, size


def _no_route(found: Found) -> Response:
    if not found.allowed:
        return _NOTHING_HERE
    return json_response(405, {"detail": "Method Not Allowed"}, {"allow": ", ".join(sorted(found.allowed))})
