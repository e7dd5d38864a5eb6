"""Routes that say which scope of key they need, once, for admission and for the OpenAPI document."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Scope

from cde_serving.access.keys import KeyScope

OPEN: Final = None  # for what anybody may ask, without a key


class GuardedRoute(Route):
    """A route that only a key with the scope `needs` may ask, or anybody if that is OPEN."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], *, needs: KeyScope | None, methods: Sequence[str] = ("GET",)
    ) -> None:
        super().__init__(path, endpoint, methods=list(methods))
        self.needs = needs
        self.is_app = self.app is endpoint


class OpenMount(Mount):
    """An app of its own below a path, for everybody to read."""

    needs = OPEN
    methods = frozenset({"GET", "HEAD"})

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app)


Guarded = GuardedRoute | OpenMount


class UnguardedRouteError(TypeError):
    """A route that does not say who may ask it."""


@dataclass(frozen=True, slots=True)
class Found:
    """
    The route of a request, if any, and the pattern of its path: "other" if nothing is there.

    Without a route, `allowed` are the methods that the path has.
    """

    pattern: str
    route: Guarded | None = None
    allowed: frozenset[str] = frozenset()


_NOTHING = Found("other")


class RouteTable:
    """
    Finds the route of a request.

    Raises:
        UnguardedRouteError: a route does not say who may ask it.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self.routes: list[Guarded] = []
        self._plain: dict[tuple[str, str], Found] = {}
        for route in routes:
            if not isinstance(route, Guarded):
                raise UnguardedRouteError(f"{route!r} does not say which scope it needs: make it a GuardedRoute")
            self.routes.append(route)
            if "{" not in route.path and isinstance(route, GuardedRoute):
                for method in route.methods or ():
                    self._plain.setdefault((method, route.path), Found(route.path, route))

    def find(self, scope: Scope) -> Found:
        """The route of a request."""
        found = self._plain.get((scope["method"], scope["path"]))
        return found or self._search(scope)

    def _search(self, scope: Scope) -> Found:
        allowed: set[str] = set()
        pattern = _NOTHING.pattern
        for route in self.routes:
            if route.matches(scope)[0] is Match.NONE:
                continue
            methods = route.methods or frozenset()
            if scope["method"] in methods:
                return Found(route.path, route)
            allowed |= methods
            pattern = route.path
        return Found(pattern, None, frozenset(allowed)) if allowed else _NOTHING
