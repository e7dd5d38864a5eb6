"""Tests for what stands between the socket and the service."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cde_serving.service import _Front


def test_applications_pass_by_bentomls_layers_and_probes_go_through_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that keeps something of every request costs a fifth of the throughput."""
    seen = []

    class Layer:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope.get("path", scope["type"]))
            await self.app(scope, receive, send)

    async def alive(_: object) -> PlainTextResponse:
        return PlainTextResponse("alive")

    monkeypatch.setattr(_Front, "app", PlainTextResponse("decided"), raising=False)
    bento = Starlette(routes=[Route("/livez", alive)], middleware=[Middleware(Layer), Middleware(_Front)])
    life = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(life)

    async def send(_: object) -> None:
        pass

    async def answers() -> list[str]:
        await bento({"type": "lifespan"}, receive, send)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(bento), base_url="http://desk") as client:
            return [(await client.get(path)).text for path in ("/api/v1/credit/score", "/livez", "/livezX", "/livez/x")]

    assert ["decided", "alive", "decided", "decided"] == asyncio.run(answers())
    assert ["lifespan", "/livez"] == seen
