"""The documentation of the service, as a page and as an OpenAPI document."""

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from cde_serving.access.routes import OPEN, Guarded, GuardedRoute, OpenMount
from cde_serving.openapi import openapi_document
from cde_serving.routes.responses import raw_response
from cde_serving.scorer import Scorer

_PAGE = """<!DOCTYPE html>
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
_SCRIPT = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
# Swagger UI sets style attributes and draws its icons from data: URLs; nothing is loaded from elsewhere.
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


class Docs:
    """Swagger UI with assets of our own: nothing is loaded from elsewhere."""

    def __init__(self, scorer: Scorer, routes: Sequence[Guarded]) -> None:
        self._scorer = scorer
        self._documented = routes
        self._document: tuple[str | None, bytes] = ("", b"")
        self.routes = (
            GuardedRoute("/", self._index, needs=OPEN),
            GuardedRoute("/openapi.json", self._openapi, needs=OPEN),
            GuardedRoute("/docs", self._docs, needs=OPEN),
            GuardedRoute("/docs/start.js", self._script, needs=OPEN),
            OpenMount("/docs/assets", StaticFiles(directory=str(swagger_ui_path))),
        )

    async def _index(self, _: Request) -> Response:
        return RedirectResponse("/docs")

    async def _openapi(self, _: Request) -> Response:
        bundle = self._scorer.releases.serving
        digest = bundle.digest if bundle else None
        if self._document[0] != digest:
            self._document = (digest, msgspec.json.encode(openapi_document(bundle, self._documented)))
        return raw_response(200, self._document[1])

    async def _docs(self, _: Request) -> Response:
        return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})

    async def _script(self, _: Request) -> Response:
        return Response(_SCRIPT, media_type="text/javascript")
