"""The credit decision service under BentoML: `bentoml serve cde_serving.service:CreditDecisionService`."""

import asyncio
from pathlib import Path
from typing import Any, cast

import bentoml
import prometheus_client.values
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from cde_domain.clock import Clock
from cde_serving.access.key_ring import KeyRing
from cde_serving.access.rates import Rates
from cde_serving.app import create_app
from cde_serving.decision_log import DecisionLog
from cde_serving.enrichment import Bureau, Enricher
from cde_serving.follower import ReleaseFollower
from cde_serving.garbage import keep_what_is_loaded
from cde_serving.kill_switch import KillSwitch
from cde_serving.logs import configure_logging, take_over_servers_log
from cde_serving.metrics import Metrics
from cde_serving.plain_http import speak_plain_http
from cde_serving.plan import PlanFollower
from cde_serving.releases import PUBLIC_KEY, ReleaseStore, store_to_serve
from cde_serving.scorer import Scorer
from cde_serving.settings import Settings

take_over_servers_log()  # here, since the supervisor imports this module and never starts the service
speak_plain_http()  # here, since a worker imports this module before it makes its server

PROBES = frozenset(("/livez", "/healthz", "/readyz"))  # that BentoML answers
BAKED = Path(__file__).parent.parent / "release"  # in a built bento, beside the packages


def open_scorer(settings: Settings, baked: Path = BAKED) -> Scorer:
    """
    Open everything that serving needs, as the settings say.

    A bento with a release built in serves that release's portfolio, whatever the settings name, and believes the public
    key that was built in unless the settings name another.

    Raises:
        ClockFileError: the settings name a clock file that tells no time.
        PortfolioError: they name a portfolio by an import path that cannot be loaded.
        LedgerError: the ledger built into the bento is damaged.
        LogUnavailableError: the decision log cannot be opened.
        ApiKeyError: the default rate limit is none.
    """
    clock = _open_clock(settings)
    built_in = ReleaseStore(baked, settings.verify_key or baked / PUBLIC_KEY)
    first = built_in.ledger.current()
    name = first.portfolio if first else settings.portfolio_name()
    at_home = ReleaseStore(settings.portfolio_home(name), settings.verify_key_file(), portfolio=name, clock=clock)
    metrics, rates = Metrics(), Rates(settings.rate_limit)
    log = DecisionLog.open(settings, name)
    releases = ReleaseFollower(store_to_serve(at_home, built_in), clock, on_failure=metrics.release_failed)
    releases.start()
    keys = KeyRing(log.read_engine, log.master, clock) if settings.auth == "on" else None
    if keys is None:
        structlog.get_logger().warning("authentication is off: whoever reaches the port is let in", setting="CDE_AUTH")
    return Scorer(
        releases,
        log,
        metrics,
        clock,
        promote=_promote_command(settings.portfolio),
        switch=KillSwitch(log.read_engine, name),
        plan=PlanFollower(releases.store, clock, on_failure=metrics.experiment_failed),
        enricher=_open_enricher(settings, metrics),
        keys=keys,
        rates=rates,
    )


def _open_clock(settings: Settings) -> Clock:
    clock = settings.clock()
    if settings.clock_file is not None:
        structlog.get_logger().warning(
            "the time is told by a file, for tests only", setting="CDE_CLOCK_FILE", now=clock().isoformat()
        )
    return clock


def _open_enricher(settings: Settings, metrics: Metrics) -> Enricher | None:
    if settings.bureau_url is None:
        return None
    bureau = Bureau(str(settings.bureau_url), settings.bureau_deadline, metrics.bureau_asked)
    metrics.gauge("cde_bureau_breaker_open", "1 while the bureau is not asked", lambda: float(bureau.breaker.open))
    return Enricher(bureau)


def _promote_command(portfolio: str) -> str:
    default = Settings.model_fields["portfolio"].default
    return "make demo" if portfolio == default else f"make demo PORTFOLIO={portfolio}"


class _Front:
    """
    Answers every request itself, but for BentoML's own probes: its router, contexts and API have nothing to do here.

    The service's app is made when a worker starts. From then on this stands outside all of BentoML's layers, whose
    timer for each request lives for the whole time limit, also where the answer took a millisecond.
    """

    app: ASGIApp

    def __init__(self, bento: ASGIApp) -> None:
        self._bento = bento

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            whole = scope["app"]
            whole.middleware_stack = _Front(whole.middleware_stack)
            await self._bento(scope, receive, send)
        else:
            await (self._bento if scope["path"] in PROBES else _Front.app)(scope, receive, send)


# BentoML asks for counters that processes share through files, at a system call each; the one worker counts in memory.
prometheus_client.values.ValueClass = prometheus_client.values.MutexValue


# One worker: it holds one reference to the served bundle and one writer of the log; more processes need a supervisor.
# BentoML's own tracing and access log cost more than a decision, and its metrics page would hide ours.
@bentoml.service(
    name="credit_decision",
    workers=1,
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*", "sample_rate": 0.0},
    logging={"access": {"enabled": False}},
)
class CreditDecisionService:
    """Explained, recorded credit decisions over HTTP."""

    @bentoml.on_startup
    async def open(self) -> None:
        """Open the scorer with the settings of this moment."""
        settings = Settings()
        configure_logging(settings.log_level)
        self._scorer = await asyncio.to_thread(open_scorer, settings)
        _Front.app = create_app(self._scorer, settings.access_log)
        keep_what_is_loaded()
        if settings.warm_explanations == "on":
            self._scorer.explainer.warm()

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Record what waits before the process ends."""
        if self._scorer.enricher is not None:
            await self._scorer.enricher.bureau.close()
        await asyncio.to_thread(self._scorer.close)


cast(Any, CreditDecisionService).add_asgi_middleware(_Front)  # it is a `bentoml.Service` now
