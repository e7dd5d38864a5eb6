"""Scores applications: parse, decide, record, answer."""

import asyncio
from datetime import datetime

import msgspec

from cde_domain.clock import Clock, utc_now
from cde_domain.decisions.engine import Decision
from cde_domain.release import Bundle
from cde_serving.access.key_ring import KeyRing
from cde_serving.access.rates import Rates
from cde_serving.answers import Answer, answer_to
from cde_serving.applications import InvalidApplicationError, canonical, parse_application
from cde_serving.assignment import Assigned, assign
from cde_serving.deciding import decide
from cde_serving.decision_log import DecisionLog, KeyReusedError, Record
from cde_serving.enrichment import Completed, Enricher
from cde_serving.explanations import Explain, Explainer
from cde_serving.follow_ups import FollowUps
from cde_serving.follower import NothingPromotedError, ReleaseFollower
from cde_serving.kill_switch import KillSwitch
from cde_serving.metrics import Metrics
from cde_serving.plan import PlanFollower
from cde_serving.records.names import iso, record_id_at
from cde_serving.records.record import DEFAULT_TENANT, Payload
from cde_serving.records.versions import VersionsOf
from cde_serving.shadows import Seen, Shadows

KeyedRequest = tuple[str, str]  # an idempotency key, and the fingerprint of what was asked with it

_encode = msgspec.json.Encoder().encode


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
        self.promote = promote  # the command that gets a first model promoted
        self.switch = switch
        self.plan = plan
        self.enricher = enricher
        self.keys = keys
        self.rates = rates
        self.follow_ups = FollowUps(releases, log, clock)
        self.clock = clock
        self.explainer = Explainer()
        self._versions = VersionsOf()
        self._shadows = Shadows(log, self._versions, metrics.shadow_decided) if plan else None
        metrics.watch("cde_automatic_decisions_stopped", "1 while every decision goes to a person", self._is_stopped)

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
            ExplainerBusyError: too many wait for the explanation that was asked for; nothing was recorded.
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
        return known.payload.answer

    async def _decide(self, body: bytes, request: KeyedRequest | None, tenant: str, explain: Explain) -> bytes:
        champion = self.serving()  # taken once: whatever is promoted from here on, one bundle decides
        completed = self.parsed(champion, body)
        if completed is None:
            # A lookup costs money and leaves a trace at the bureau: who only asks again causes none.
            if (earlier := await self.answered_before(request, tenant)) is not None:
                return earlier
            completed = await self.fetched(champion, body)
        assigned = self.assigned(completed, champion, tenant)
        applied_at = self.clock()
        decision = decide(
            assigned.bundle,
            assigned.application,
            applied_at.date(),
            fault=assigned.fault,
            stopped=self.switch.stopped,
        )
        answer = self.answer(assigned, decision, applied_at)
        if explain is not Explain.PLAIN:
            explanation = await self.explainer.explain(
                explain, assigned.bundle, assigned.application, answer, decision.features
            )
            answer = msgspec.structs.replace(answer, explanation=explanation)
        return await self.recorded(assigned, answer, decision, request, tenant)

    def parsed(self, champion: Bundle, body: bytes) -> Completed | None:
        """
        The application in a body; None if the bureau is to be asked for the part that it lacks.

        Raises:
            InvalidApplicationError: the body is no application.
        """
        model, enrichment = champion.portfolio.application, champion.portfolio.enrichment
        if self.enricher is None or enrichment is None:
            return Completed(*parse_application(model, body))
        return self.enricher.whole(enrichment, model, body)

    async def fetched(self, champion: Bundle, body: bytes) -> Completed:
        """The application in a body of which `parsed` gave None, with what the bureau said or the fault."""
        portfolio = champion.portfolio
        assert self.enricher is not None
        assert portfolio.enrichment is not None
        return await self.enricher.complete(portfolio.enrichment, portfolio.application, body, self.clock().date())

    def assigned(self, completed: Completed, champion: Bundle, tenant: str) -> Assigned:
        """The application with the bundle that decides it."""
        plan = self.plan.plan if self.plan is not None else None
        return assign(completed, champion, plan, lambda customer: self.log.master.token("customer", tenant, customer))

    def answer(self, assigned: Assigned, decision: Decision, applied_at: datetime) -> Answer:
        """The answer that a decision comes to, with an id of its own."""
        customer, bundle = assigned.application.customer_id, assigned.bundle
        return answer_to(customer, record_id_at(applied_at), applied_at, decision, bundle, assigned.variant)

    def serving(self) -> Bundle:
        """
        The bundle that decides.

        Raises:
            NothingPromotedError: there is none yet.
        """
        bundle = self.releases.serving
        if bundle is None:
            raise NothingPromotedError
        return bundle

    async def recorded(
        self, assigned: Assigned, answer: Answer, decision: Decision, request: KeyedRequest | None, tenant: str
    ) -> bytes:
        """Record a decision and offer it to the shadows; returns as `DecisionLog.record`."""
        payload = Payload(
            customer_id=answer.customer_id,
            request=assigned.request,
            features=decision.features,
            score=answer.score,
            answer=_encode(answer),
            fetched=assigned.fetched,
        )
        idempotency_key, fingerprint = request or (None, None)
        recorded = await self.log.record(
            Record(
                record_id=answer.decision_id,
                tenant=tenant,
                applied_at=iso(answer.applied_at),
                portfolio=answer.portfolio,
                payload=payload,
                decision=answer.decision.value,
                decided_by=decision.decided_by.value,
                reason_codes=answer.reason_codes,
                variant=answer.variant.value,
                versions=self._versions(assigned.bundle),
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
            )
        )
        if recorded is payload.answer:
            self.metrics.decided(decision)
            if assigned.shadows and self._shadows is not None:
                self._shadows.offer(Seen(answer.decision_id, tenant, answer.applied_at, assigned))
        return recorded

    def _is_stopped(self) -> float:
        return float(self.switch.stopped)

    def close(self) -> None:
        """Stop following keys and releases, and record what waits."""
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
