"""Scores applications: parse, decide, record, answer."""

import asyncio

import msgspec

from cde_domain.clock import Clock, utc_now
from cde_domain.decisions.variants import Variant
from cde_domain.release import Bundle
from cde_serving.access.key_ring import KeyRing
from cde_serving.access.rates import Rates
from cde_serving.answers import answer_to
from cde_serving.applications import InvalidApplicationError, parse_application
from cde_serving.deciding import decide
from cde_serving.decision_log import DecisionLog, KeyReusedError, Record
from cde_serving.enrichment import Completed, Enricher
from cde_serving.follower import ReleaseFollower
from cde_serving.kill_switch import KillSwitch
from cde_serving.metrics import Metrics
from cde_serving.plan import PlanFollower
from cde_serving.records.names import iso, record_id_at
from cde_serving.records.record import DEFAULT_TENANT, Payload
from cde_serving.records.versions import VersionsOf
from cde_serving.shadows import Seen, Shadows

_encode = msgspec.json.Encoder().encode


class NothingPromotedError(RuntimeError):
    """There is no bundle to decide with yet."""


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
        self._clock = clock
        self._versions = VersionsOf()
        self._shadows = Shadows(log, self._versions, metrics.shadow_decided) if plan else None
        metrics.watch("cde_automatic_decisions_stopped", "1 while every decision goes to a person", self._is_stopped)

    async def score(self, body: bytes, *, idempotency_key: str | None = None, tenant: str = DEFAULT_TENANT) -> bytes:
        """
        Decide the application in a JSON body, and return the answer once it is recorded.

        With an idempotency key that was used before, the same body gets the same bytes.

        Raises:
            NothingPromotedError: no bundle is served yet.
            InvalidApplicationError: the body is no application; nothing was recorded.
            LogBusyError, LogUnavailableError: the decision could not be recorded, so it is not given.
            KeyInProgressError, KeyReusedError, ErasedError: as `DecisionLog.record`.
        """
        if idempotency_key is None:
            return await self._decide(body, None, tenant)
        request = (idempotency_key, self.log.fingerprint(_canonical(body), tenant))
        try:
            return await self._decide(body, request, tenant)
        except (NothingPromotedError, InvalidApplicationError):
            # What was answered once is answered again, whatever the model of today makes of the body.
            known = await self._answered_before(request, tenant)
            if known is None:
                raise
            return known

    async def _answered_before(self, request: tuple[str, str], tenant: str) -> bytes | None:
        known = await asyncio.to_thread(self.log.find, request[0], tenant)
        if known is None:
            return None
        if known.fingerprint != request[1]:
            raise KeyReusedError from None
        return known.payload.answer

    async def _decide(self, body: bytes, request: tuple[str, str] | None, tenant: str) -> bytes:
        champion = self.releases.serving  # taken once: whatever is promoted from here on, one bundle decides
        if champion is None:
            raise NothingPromotedError
        model = champion.portfolio.application
        enrichment = champion.portfolio.enrichment
        if self.enricher is None or enrichment is None:
            completed = Completed(*parse_application(model, body))
        elif (whole := self.enricher.whole(enrichment, model, body)) is not None:
            completed = whole
        else:
            # A lookup costs money and leaves a trace at the bureau: who only asks again causes none.
            if request is not None and (known := await self._answered_before(request, tenant)) is not None:
                return known
            completed = await self.enricher.complete(enrichment, model, body, self._clock().date())
        return await self._answer(completed, champion, request, tenant)

    async def _answer(
        self, completed: Completed, champion: Bundle, request: tuple[str, str] | None, tenant: str
    ) -> bytes:
        plan = self.plan.plan if self.plan else None
        application, kept, fault = completed.application, completed.request, completed.fault
        variant, bundle = Variant.CHAMPION, champion
        if plan is not None and plan.challenger is not None:
            customer = self.log.master.token("customer", tenant, application.customer_id)
            variant, bundle = plan.for_customer(customer, champion)
            if variant is Variant.CHALLENGER:
                try:
                    application, kept = parse_application(bundle.portfolio.application, completed.request)
                except InvalidApplicationError:  # what the champion takes is what applicants are told to send
                    variant, bundle = Variant.CHAMPION, champion
        applied_at = self._clock()
        decision = decide(bundle, application, applied_at.date(), fault=fault, stopped=self.switch.stopped)
        answer = answer_to(application.customer_id, record_id_at(applied_at), applied_at, decision, bundle, variant)
        payload = Payload(
            customer_id=answer.customer_id,
            request=kept,
            features=decision.features,
            score=answer.score,
            answer=_encode(answer),
            fetched=completed.fetched,
        )
        idempotency_key, fingerprint = request or (None, None)
        recorded = await self.log.record(
            Record(
                record_id=answer.decision_id,
                tenant=tenant,
                applied_at=iso(applied_at),
                portfolio=answer.portfolio,
                payload=payload,
                decision=answer.decision.value,
                decided_by=decision.decided_by.value,
                reason_codes=answer.reason_codes,
                variant=answer.variant.value,
                versions=self._versions(bundle),
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
            )
        )
        if recorded is payload.answer:
            self.metrics.decided(decision)
            if plan is not None and plan.shadows and self._shadows is not None:
                self._shadows.offer(
                    Seen(
                        decision_id=answer.decision_id,
                        tenant=tenant,
                        request=completed.request,
                        fetched=payload.fetched,
                        fault=fault,
                        applied_at=applied_at,
                        bundles=plan.shadows,
                    )
                )
        return recorded

    def _is_stopped(self) -> float:
        return float(self.switch.stopped)

    def close(self) -> None:
        """Stop following keys and releases, and record what waits."""
        if self.keys:
            self.keys.close()
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


def _canonical(body: bytes) -> bytes:
    """A JSON body without the freedom of spaces and order; another body as it is."""
    try:
        return msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    except (ValueError, RecursionError):
        return body
