"""Is it alive, is it ready, and what Prometheus scrapes."""

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from cde_serving.access.routes import OPEN, GuardedRoute
from cde_serving.clock_file import ClockFile
from cde_serving.records.names import iso
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
        unusual = {} if self._scorer.keys else {"auth": "off"}
        if isinstance(self._scorer.clock, ClockFile):
            unusual["clock"] = iso(self._scorer.clock())
        bundle, entry = releases.serving, releases.entry
        if bundle is None or entry is None:
            if releases.problem:
                return json_response(
                    503, {"status": "promoted bundle cannot be served", "problem": releases.problem, **unusual}
                )
            return json_response(503, {**nothing_promoted(self._scorer), **unusual})
        body = {
            "status": "decisions cannot be recorded" if problem else "ready",
            "portfolio": bundle.portfolio.name,
            "bundle": bundle.digest,
            "policy_version": bundle.engine.policy.version,
            "promoted_at": entry.at,
            "problem": problem or releases.problem,
            **_circumstances(self._scorer),
            **unusual,
        }
        return json_response(503 if problem else 200, body)

    async def _metrics(self, _: Request) -> Response:
        return Response(self._scorer.metrics.page(), headers={"content-type": CONTENT_TYPE_LATEST})


def _circumstances(scorer: Scorer) -> dict[str, Any]:
    """What else decides how applications are answered: kill switch, experiment, bureau."""
    plan = scorer.plan.plan if scorer.plan else None
    told: dict[str, Any] = {
        "automatic_decisions": "stopped" if scorer.switch.stopped else "on",
        "experiment": None,
    }
    if plan is not None and plan.problem:
        told["experiment"] = {"problem": plan.problem}
    elif plan is not None and plan.experiment:
        told["experiment"] = {
            "name": plan.experiment,
            "weight": plan.weight,
            "challenger": plan.challenger.digest if plan.challenger else None,
            "shadows": [shadow.digest for shadow in plan.shadows],
        }
    if scorer.enricher is not None:
        told["bureau"] = "not asked for a while" if scorer.enricher.bureau.breaker.open else "asked"
    return told
