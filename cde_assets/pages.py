"""The pages that assets write (model cards, drift, experiments, simulations): a browser opens no file:// link."""

import re
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Route

from cde_serving.settings import Settings

# Beside them in CDE_HOME lie keys and databases, so that only what looks like a page is one.
PAGE = re.compile(r"\w+/(models/[0-9a-f]{64}|decisions/reports/\w+)/[\w-]+\.html")


def pages(home: Path, hosts: list[str]) -> Starlette:
    """The pages below a home, for requests to these hosts alone: a name that was bound anew finds nothing."""

    def page(request: Request) -> FileResponse:
        path = request.path_params["path"]
        file = home / path
        if not PAGE.fullmatch(path) or not file.is_file():
            raise HTTPException(404, "no such page: pages of drift are kept for 90 reports")
        return FileResponse(file)

    def index(_: Request) -> HTMLResponse:
        found = (path.relative_to(home).as_posix() for path in home.glob("*/**/*.html"))
        links = "".join(f'<li><a href="/{path}">{path}</a></li>' for path in sorted(found) if PAGE.fullmatch(path))
        return HTMLResponse(f"<!doctype html><title>Pages</title><ul>{links or 'No page was written yet.'}</ul>")

    routes = [Route("/", index, methods=["GET"]), Route("/{path:path}", page, methods=["GET"])]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])


def app() -> Starlette:
    """The pages of `CDE_HOME`, as `cde up` serves them."""
    settings = Settings()
    reached = settings.pages_url.host if settings.pages_url else None
    return pages(settings.home, [settings.host, "localhost", *([reached] if reached else [])])
