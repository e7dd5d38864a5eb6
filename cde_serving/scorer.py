"""Scores applications: parse, decide, record, answer."""

import asyncio
import platform
import time
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec
import structlog

from cde_domain.clock import Clock, utc_now
from cde_domain.decisions.engine import Decision
from cde_domain.decisions.review import reviewed
from cde_domain.decisions.variants import Variant
from cde_domain.release import Bundle
from cde_serving.access.key_ring import KeyRing
from cde_serving.access.rates import Rates
from cde_serving.answers import Answer, answer_to, record_of
from cde_serving.applications import InvalidApplicationError, canonical, parse_application
from cde_serving.deciding import Decider
from cde_serving.decision_log import DecisionLog, KeyReusedError
from cde_serving.enrichment import Enricher
from cde_serving.explanations import Explain, Explainer
from cde_serving.follow_ups import FollowUps
from cde_serving.follower import NothingPromotedError, ReleaseFollower
from cde_serving.intake import Intake, take_in
from cde_serving.kill_switch import KillSwitch
from cde_serving.logs import places
from cde_serving.metrics import Metrics
from cde_serving.plan import CHAMPION_ALONE, PlanFollower
from cde_serving.records.names import record_id_at
from cde_serving.records.record import DEFAULT_TENANT, Payload
from cde_serving.records.versions import VersionsOf, platform_code
from cde_serving.shadows import Seen, Shadows

KeyedRequest = tuple[str, str]  # an idempotency key, and the fingerprint of what was asked with it

_encode = msgspec.json.Encoder().encode

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who decides on an application, since when (`time.perf_counter`), and who decides in the shadow."""

    intake: Intake
    variant: Variant
    bundle: Bundle
    shadows: tuple[Bundle, ...]
    since: float = field(default_factory=time.perf_counter)


class Scorer:
    """
    Everything that a running service holds: the followed releases, the decision log, metrics, API keys and the clock.

    `keys` is None where authentication is switched off. Without a `plan` the champion decides alone, without an
    `enricher` nothing is fetched.
    """

    def __init__(
        self,
        releases: ReleaseFollower,
        log: DecisionLog,
        metrics: Metrics,
        clock: Clock = utc_now,
        *,
        promote: str,
        keys: KeyRing | None,
        rates: Rates,
        switch: KillSwitch,
        plan: PlanFollower | None = None,
        enricher: Enricher | None = None,
    ) -> None:
        self.releases = releases
        self.log = log
        self.metrics = metrics
        metrics.watch(log, releases)
        self.promote = promote  # the command that gets a first model promoted
        self.switch = switch
        self.plan = plan
        self.enricher = enricher
        self.keys = keys
        self.rates = rates
        self.follow_ups = FollowUps(releases, log, clock)
        self.clock = clock
        self.explainer = Explainer()
        self._decider = Decider(lambda: switch.stopped)
        self._versions = VersionsOf()
        self._shadows = Shadows(log, self._versions, metrics.shadow_decided) if plan else None
        metrics.gauge("cde_automatic_decisions_stopped", "1 while every decision goes to a person", self._is_stopped)
        metrics.gauge("cde_experiment_weight", "Share of customers the challenger decides for", self._weight)
        metrics.gauge("cde_experiment_problem", "1 while an experiment cannot be run", self._experiment_fails)
        metrics.info("cde_build", "What runs", {"code": platform_code(), "python": platform.python_version()})

    async def score(
        self,
        body: bytes,
        *,
        idempotency_key: str | None = None,
        tenant: str = DEFAULT_TENANT,
        explain: Explain = Explain.PLAIN,
    ) -> bytes:
        """
        Decide the application in a JSON body, and return the answer once it is recorded.

        With an idempotency key that was used before, the same body gets the same bytes.

        Raises:
            NothingPromotedError: no bundle is served yet.
            InvalidApplicationError: the body is no application; nothing was recorded.
            ExplainerBusyError, LookupsBusyError: too many wait for an explanation or the bureau; nothing was recorded.
            LogBusyError, LogUnavailableError: the decision could not be recorded, so it is not given.
            KeyInProgressError, KeyReusedError, ErasedError: as `DecisionLog.record`.
        """
        request = self.request_of(body, idempotency_key, tenant, explain)
        try:
            return await self._decide(body, request, tenant, explain)
        except (NothingPromotedError, InvalidApplicationError):
            earlier = await self.answered_before(request, tenant)
            if earlier is None:
                raise
            return earlier

    def request_of(
        self, body: bytes, idempotency_key: str | None, tenant: str, explain: Explain = Explain.PLAIN
    ) -> KeyedRequest | None:
        """What a request is known by: its idempotency key, and a fingerprint of what was asked."""
        if idempotency_key is None:
            return None
        asked = b"" if explain is Explain.PLAIN else f"explain={explain.value}\n".encode()
        return idempotency_key, self.log.fingerprint(asked + canonical(body), tenant)

    async def answered_before(self, request: KeyedRequest | None, tenant: str) -> bytes | None:
        """What was answered once is answered again, whatever the model of today makes of the body."""
        known = await asyncio.to_thread(self.log.find, request[0], tenant) if request else None
        if request is None or known is None:
            return None
        if known.fingerprint != request[1]:
            raise KeyReusedError
        self.metrics.replayed()
        return known.payload.answer

    async def _decide(self, body: bytes, request: KeyedRequest | None, tenant: str, explain: Explain) -> bytes:
        champion = self.serving()  # taken once: whatever is promoted from here on, one bundle decides
        intake = await self.taken_in(champion, body, request, tenant)
        if isinstance(intake, bytes):
            return intake
        chosen = self.chosen(champion, intake, tenant)
        applied_at = self.clock()
        decision = await self._decider.decide(chosen.bundle, chosen.intake, applied_at.date())
        return await self.answered(chosen, decision, applied_at, request, tenant, explain)

    def serving(self) -> Bundle:
        """
        The champion.

        Raises:
            NothingPromotedError: there is none yet.
        """
        bundle = self.releases.serving
        if bundle is None:
            raise NothingPromotedError
        return bundle

    async def taken_in(
        self, champion: Bundle, body: bytes, request: KeyedRequest | None, tenant: str
    ) -> Intake | bytes:
        """
        The application in a body, completed by the bureau where a part is left out.

        A lookup costs money and leaves a trace at the bureau: who only asks again causes none, and what was answered
        before is returned instead.
        """
        portfolio = champion.portfolio
        enrichment = portfolio.enrichment
        if self.enricher is None or enrichment is None:
            return take_in(portfolio, body)
        whole = self.enricher.whole(portfolio, enrichment, body)
        if whole is not None:
            return whole
        known = await self.answered_before(request, tenant)
        return known or await self.enricher.complete(portfolio, enrichment, body, self.clock().date())

    def chosen(self, champion: Bundle, intake: Intake, tenant: str) -> Chosen:
        """Which variant decides on an application."""
        plan = self.plan.plan if self.plan else CHAMPION_ALONE
        if plan.challenger is not None:
            customer = self.log.master.token("customer", tenant, intake.application.customer_id)
            variant, bundle = plan.for_customer(customer, champion)
            if variant is Variant.CHALLENGER:
                try:
                    application, kept = parse_application(bundle.portfolio.application, intake.request)
                except InvalidApplicationError:  # what the champion takes is what applicants are told to send
                    pass
                except Exception as bug:  # in the challenger's code: no reason to turn anybody away
                    kind, at = type(bug).__name__, places(bug.__traceback__)
                    log.error("the challenger cannot read an application", error=kind, at=at)
                else:
                    intake = replace(intake, application=application, request=kept)
                    return Chosen(intake, variant, bundle, plan.shadows)
        return Chosen(intake, Variant.CHAMPION, champion, plan.shadows)

    async def answered(
        self,
        chosen: Chosen,
        decision: Decision,
        applied_at: datetime,
        request: KeyedRequest | None,
        tenant: str,
        explain: Explain = Explain.PLAIN,
    ) -> bytes:
        """Record a decision; returns what to answer, as `DecisionLog.record`."""
        intake, bundle = chosen.intake, chosen.bundle
        customer_id = intake.application.customer_id
        answer = await self._explained(explain, chosen, decision, applied_at)
        still = reviewed(decision, stopped=self.switch.stopped)  # an explanation may have taken longer than a stop may
        if still is not decision:
            decision = still
            answer = await self._explained(explain, chosen, decision, applied_at)
        payload = Payload(
            customer_id=customer_id,
            request=intake.request,
            features=decision.features,
            score=answer.score,
            answer=_encode(answer),
            fetched=intake.fetched,
        )
        idempotency_key, fingerprint = request or (None, None)
        recorded = await self.log.record(
            record_of(
                answer,
                decision.decided_by,
                payload,
                self._versions(bundle),
                tenant=tenant,
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
                protected=intake.protected,
            )
        )
        if recorded is not payload.answer:
            self.metrics.replayed()
            return recorded
        self.metrics.decided(decision, bundle, answer.variant, time.perf_counter() - chosen.since)
        if chosen.shadows and self._shadows is not None:
            self._shadows.offer(
                Seen(
                    decision_id=answer.decision_id,
                    tenant=tenant,
                    request=intake.request,
                    fetched=intake.fetched,
                    fault=intake.fault,
                    applied_at=applied_at,
                    bundles=chosen.shadows,
                )
            )
        return recorded

    async def _explained(self, explain: Explain, chosen: Chosen, decision: Decision, applied_at: datetime) -> Answer:
        """The answer that a decision comes to, explained as far as was asked."""
        application, bundle = chosen.intake.application, chosen.bundle
        answer = answer_to(
            application.customer_id, record_id_at(applied_at), applied_at, decision, bundle, chosen.variant
        )
        if explain is Explain.PLAIN:
            return answer
        explanation = await self.explainer.explain(explain, bundle, application, answer, decision.features)
        return msgspec.structs.replace(answer, explanation=explanation)

    def _is_stopped(self) -> float:
        return float(self.switch.stopped)

    def _weight(self) -> float:
        plan = self.plan.plan if self.plan else CHAMPION_ALONE
        return plan.weight if plan.challenger is not None else 0.0

    def _experiment_fails(self) -> float:
        return float(self.plan is not None and self.plan.plan.problem is not None)

    def close(self) -> None:
        """Stop following keys, releases and experiments, and record what waits."""
        if self.keys:
            self.keys.close()
        self.explainer.close()
        self.releases.close()
        self.switch.close()
        if self.plan is not None:
            self.plan.close()
        if self._shadows is not None:
            self._shadows.close()
        self.log.close()


def nothing_promoted(scorer: Scorer) -> dict[str, str]:
    """What a service answers before the first promotion."""
    return {"status": "nothing promoted yet", "run": scorer.promote}
