"""`GET .../notice`: the notice of adverse action as JSON, or as a page to print."""

import asyncio

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cde_serving.access.admission import caller_of
from cde_serving.access.routes import GuardedRoute
from cde_serving.notices import NotAdverseError, Notice, notice_of, notice_page
from cde_serving.routes.decisions import DECISION, is_decision_id
from cde_serving.routes.refusals import NO_DECISION, REFUSALS, refusal
from cde_serving.routes.responses import json_response
from cde_serving.scorer import Scorer

NOTICE = DECISION + "/notice"
NOTICE_PAGE = DECISION + "/notice.html"

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Notices:
    """Notices of recorded decisions that stand as rejections."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.routes = (
            GuardedRoute(NOTICE, self._either, needs="read"),
            GuardedRoute(NOTICE_PAGE, self._page, needs="read"),
        )

    async def _either(self, request: Request) -> Response:
        response = await self._answer(request, page=prefers_page(request.headers.get("accept", "")))
        response.headers["vary"] = "accept"
        return response

    async def _page(self, request: Request) -> Response:
        return await self._answer(request, page=True)

    async def _answer(self, request: Request, *, page: bool) -> Response:
        decision_id = request.path_params["decision_id"]
        if not is_decision_id(decision_id):
            return json_response(404, NO_DECISION)
        try:
            notice = await asyncio.to_thread(self._notice, decision_id, caller_of(request.scope).tenant)
        except NotAdverseError as error:
            return json_response(404, {"detail": str(error)})
        except REFUSALS as error:
            return refusal(error, self._scorer)
        if notice is None:
            return json_response(404, NO_DECISION)
        if not page:
            return json_response(200, notice)
        headers = {"content-security-policy": _POLICY, "cache-control": "no-store"}
        return HTMLResponse(notice_page(notice), headers=headers)

    def _notice(self, decision_id: str, tenant: str) -> Notice | None:
        record = self._scorer.log.get(decision_id, tenant)
        if record is None:
            return None
        return notice_of(record, self._scorer.follow_ups.about(record), self._scorer.serving().portfolio)


def prefers_page(accept: str) -> bool:
    """Whether an Accept header names HTML, and JSON not before it (RFC 9110, section 12.5.1)."""
    quality = {"text/html": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind in quality:
            given = next((one[2:] for one in parameters if one.startswith("q=")), "1")
            try:
                quality[kind] = float(given)
            except ValueError:
                continue
    return quality["text/html"] > quality["application/json"]
