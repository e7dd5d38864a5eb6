"""Is it alive, is it ready, and what Prometheus scrapes."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from cde_serving.access.routes import OPEN, GuardedRoute
from cde_serving.routes.responses import json_response
from cde_serving.scorer import Scorer, nothing_promoted


class Probes:
    """For load balancers and monitoring."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.routes = (
            GuardedRoute("/health", self._health, needs=OPEN),
            GuardedRoute("/ready", self._ready, needs=OPEN),
            GuardedRoute("/metrics", self._metrics, needs=OPEN),
        )

    async def _health(self, _: Request) -> Response:
        return json_response(200, {"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        releases, problem = self._scorer.releases, self._scorer.log.problem
        auth = {} if self._scorer.keys else {"auth": "off"}
        bundle, entry = releases.serving, releases.entry
        if bundle is None or entry is None:
            if releases.problem:
                return json_response(
                    503, {"status": "promoted bundle cannot be served", "problem": releases.problem, **auth}
                )
            return json_response(503, {**nothing_promoted(self._scorer), **auth})
        body = {
            "status": "decisions cannot be recorded" if problem else "ready",
            "portfolio": bundle.portfolio.name,
            "bundle": bundle.digest,
            "policy_version": bundle.engine.policy.version,
            "promoted_at": entry.at,
            "problem": problem or releases.problem,
            **auth,
        }
        return json_response(503 if problem else 200, body)

    async def _metrics(self, _: Request) -> Response:
        return Response(self._scorer.metrics.page(), headers={"content-type": CONTENT_TYPE_LATEST})
