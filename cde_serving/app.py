"""The HTTP surface of the scoring service, as one ASGI app: its paths and status codes are the contract."""

import asyncio
import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from swagger_ui_bundle import swagger_ui_path

from cde_serving.applications import InvalidApplicationError
from cde_serving.decision_log import (
    ErasedError,
    KeyInProgressError,
    KeyReusedError,
    LogBusyError,
    LogUnavailableError,
    Record,
)
from cde_serving.openapi import MAX_BODY, openapi_document
from cde_serving.scorer import NothingPromotedError, Scorer

SCORE = "/api/v1/credit/score"
DECISIONS = "/api/v1/credit/decisions"
DECISION = DECISIONS + "/{decision_id}"

log = structlog.get_logger()

_JSON_TYPE = re.compile(r"application/(?:json|[\w.\-]+\+json)\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_DECISION_ID = re.compile(r"[0-9a-f]{32}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

_NO_DECISION = {"detail": "There is no such decision"}
_NOT_RECORDED = {"detail": "The decision could not be recorded, so it is not given"}
_BAD_KEY = {"detail": "Idempotency-Key must be 1 to 255 visible ASCII characters"}
_KEY_REUSED = {
    "field": "Idempotency-Key",
    "message": "Key was used for another request",
    "type": "idempotency_key_reused",
}

_DOCS_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Credit decisions</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
<link rel="icon" href="/docs/assets/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_DOCS_SCRIPT = (
    'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
)
# Swagger UI sets style attributes and draws its icons from data: URLs; nothing is loaded from elsewhere.
_DOCS_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def create_app(scorer: Scorer) -> ASGIApp:
    """The ASGI app over a scorer; whoever opened the scorer closes it."""
    pages = _Pages(scorer)
    routes = [
        Route(SCORE, _Score(scorer), methods=["POST"]),
        Route("/", pages.index),
        Route(DECISIONS, pages.decision_by_key),
        Route(DECISION, pages.decision),
        Route("/health", pages.health),
        Route("/ready", pages.ready),
        Route("/metrics", pages.metrics),
        Route("/openapi.json", pages.openapi),
        Route("/docs", pages.docs),
        Route("/docs/start.js", pages.docs_script),
        Mount("/docs/assets", StaticFiles(directory=str(swagger_ui_path))),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _http_error, Exception: _internal_error}
    return _Observed(Starlette(routes=routes, exception_handlers=handlers), routes, scorer)


class _Observed:
    """Counts and times every request, and is where an unexpected exception, already answered with 500, ends."""

    def __init__(self, app: ASGIApp, routes: list[BaseRoute], scorer: Scorer) -> None:
        self._app = app
        self._routes = routes
        self._metrics = scorer.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        route = self._route(scope)  # now: a mounted app changes the scope
        status = 0  # until an answer begins; it never does (499) if the client leaves or the time limit passes

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        except Exception as error:
            # Neither the message nor local variables are logged: both may hold an applicant's values.
            frames = traceback.extract_tb(error.__traceback__)[-5:]
            log.error(
                "request failed",
                error=type(error).__name__,
                at=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            )
        finally:
            self._metrics.answered(route, status or 499, time.perf_counter() - started)

    def _route(self, scope: Scope) -> str:
        if scope["path"] == SCORE:
            return SCORE
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", "other"))
        return "other"


class _Score:
    """`POST /api/v1/credit/score`."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(scope, receive)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        headers = dict(scope["headers"])
        if not _JSON_TYPE.fullmatch(headers.get(b"content-type", b"").decode("latin-1")):
            return _json(415, {"detail": "Send the application as application/json"})
        key = headers.get(b"idempotency-key")
        if key is not None and not _is_key(key.decode("latin-1")):
            return _json(400, _BAD_KEY)
        body = await _body(receive, headers.get(b"content-length", b"0"))
        if body is None:
            return _json(413, {"detail": f"An application has at most {MAX_BODY} bytes"})
        return await self._decided(body, key.decode() if key else None)

    async def _decided(self, body: bytes, key: str | None) -> Response:
        try:
            return _raw(200, await self._scorer.score(body, idempotency_key=key))
        except InvalidApplicationError as error:
            return _json(422, {"detail": [asdict(problem) for problem in error.problems]})
        except NothingPromotedError:
            return _json(503, _nothing_promoted(self._scorer))
        except LogBusyError:
            return _json(503, {"detail": "Too many decisions wait to be recorded"}, {"retry-after": "1"})
        except LogUnavailableError:
            return _json(503, _NOT_RECORDED, {"retry-after": "5"})
        except KeyReusedError:
            return _json(422, {"detail": [_KEY_REUSED]})
        except (KeyInProgressError, ErasedError) as error:
            return _no_answer(error)


class _Pages:
    """Everything but scoring."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._document: tuple[str | None, bytes] = ("", b"")

    async def index(self, _: Request) -> Response:
        return RedirectResponse("/docs")

    async def health(self, _: Request) -> Response:
        return _json(200, {"status": "ok"})

    async def ready(self, _: Request) -> Response:
        releases, problem = self._scorer.releases, self._scorer.log.problem
        bundle, entry = releases.serving, releases.entry
        if bundle is None or entry is None:
            if releases.problem:
                return _json(503, {"status": "promoted bundle cannot be served", "problem": releases.problem})
            return _json(503, _nothing_promoted(self._scorer))
        body = {
            "status": "decisions cannot be recorded" if problem else "ready",
            "portfolio": bundle.portfolio.name,
            "bundle": bundle.digest,
            "policy_version": bundle.engine.policy.version,
            "promoted_at": entry.at,
            "problem": problem or releases.problem,
        }
        return _json(503 if problem else 200, body)

    async def metrics(self, _: Request) -> Response:
        return Response(self._scorer.metrics.page(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def openapi(self, _: Request) -> Response:
        bundle = self._scorer.releases.serving
        digest = bundle.digest if bundle else None
        if self._document[0] != digest:
            self._document = (digest, msgspec.json.encode(openapi_document(bundle)))
        return _raw(200, self._document[1])

    async def docs(self, _: Request) -> Response:
        return HTMLResponse(_DOCS_PAGE, headers={"content-security-policy": _DOCS_POLICY})

    async def docs_script(self, _: Request) -> Response:
        return Response(_DOCS_SCRIPT, media_type="text/javascript")

    async def decision(self, request: Request) -> Response:
        decision_id = request.path_params["decision_id"]
        if not _DECISION_ID.fullmatch(decision_id):
            return _json(404, _NO_DECISION)
        return await self._recorded(self._scorer.log.get, decision_id)

    async def decision_by_key(self, request: Request) -> Response:
        key = request.headers.get("idempotency-key", "")
        if not _is_key(key):
            return _json(400, _BAD_KEY)
        return await self._recorded(self._scorer.log.find, key)

    async def _recorded(self, find: Callable[[str], Record | None], name: str) -> Response:
        try:
            record = await asyncio.to_thread(find, name)
        except (KeyInProgressError, ErasedError) as error:
            return _no_answer(error)
        return _raw(200, record.payload.answer) if record else _json(404, _NO_DECISION)


def _no_answer(error: KeyInProgressError | ErasedError) -> Response:
    """Why a decision that was asked for before is not there to be read."""
    if isinstance(error, KeyInProgressError):
        return _json(409, {"detail": "A request with this Idempotency-Key is being answered"}, {"retry-after": "1"})
    return _json(410, {"detail": str(error)})


def _is_key(key: str) -> bool:
    return _IDEMPOTENCY_KEY.fullmatch(key) is not None


async def _body(receive: Receive, announced: bytes) -> bytes | None:
    """The request's body, or None as soon as it is known to be too large."""
    if announced.isdigit() and int(announced[:20]) > MAX_BODY:
        return None
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            break
    return b"".join(parts)


def _nothing_promoted(scorer: Scorer) -> dict[str, str]:
    return {"status": "nothing promoted yet", "run": scorer.promote}


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(error.status_code, {"detail": error.detail}, error.headers)


async def _internal_error(_: Request, __: Exception) -> Response:
    return _json(500, {"detail": "Internal error"})


def _json(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:
    return _raw(status, msgspec.json.encode(content), headers)


def _raw(status: int, content: bytes, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json")
