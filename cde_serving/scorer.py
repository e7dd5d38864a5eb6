"""Scores applications: parse, decide, record, answer."""

import asyncio
from collections.abc import Mapping

import msgspec

from cde_domain.clock import Clock, utc_now
from cde_domain.decisions.engine import Decision
from cde_domain.release import Bundle
from cde_serving.access.key_ring import KeyRing
from cde_serving.access.rates import Rates
from cde_serving.answers import Answer, answer_to
from cde_serving.applications import InvalidApplicationError, canonical
from cde_serving.decision_log import DecisionLog, KeyReusedError, Record
from cde_serving.explanations import Explain, Explainer
from cde_serving.follow_ups import FollowUps
from cde_serving.follower import NothingPromotedError, ReleaseFollower
from cde_serving.metrics import Metrics
from cde_serving.protected import parse_apart
from cde_serving.records.names import iso, record_id_at
from cde_serving.records.record import DEFAULT_TENANT, Payload
from cde_serving.records.versions import VersionsOf

KeyedRequest = tuple[str, str]  # an idempotency key, and the fingerprint of what was asked with it

_encode = msgspec.json.Encoder().encode


class Scorer:
    """
    Everything that a running service holds: the followed releases, the decision log, metrics, API keys and the clock.

    `keys` is None where authentication is switched off.
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
    ) -> None:
        self.releases = releases
        self.log = log
        self.metrics = metrics
        metrics.watch(log, releases)
        self.promote = promote  # the command that gets a first model promoted
        self.keys = keys
        self.rates = rates
        self.follow_ups = FollowUps(releases, log, clock)
        self.clock = clock
        self.explainer = Explainer()
        self._versions = VersionsOf()

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
            self.metrics.replayed()
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
        bundle = self.serving()
        application, kept, protected = parse_apart(bundle.portfolio, body)
        applied_at = self.clock()
        decision = bundle.engine.decide(application, applied_at.date())
        answer = answer_to(application.customer_id, record_id_at(applied_at), applied_at, decision, bundle)
        if explain is not Explain.PLAIN:
            explanation = await self.explainer.explain(explain, bundle, application, answer, decision.features)
            answer = msgspec.structs.replace(answer, explanation=explanation)
        return await self.recorded(kept, answer, decision, bundle, request, tenant, protected)

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
        self,
        kept: bytes,
        answer: Answer,
        decision: Decision,
        bundle: Bundle,
        request: KeyedRequest | None,
        tenant: str,
        protected: Mapping[str, str] | None = None,
    ) -> bytes:
        """Record a decision with its application's request as `kept`; returns as `DecisionLog.record`."""
        payload = Payload(
            customer_id=answer.customer_id,
            request=kept,
            features=decision.features,
            score=answer.score,
            answer=_encode(answer),
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
                variant=answer.variant,
                versions=self._versions(bundle),
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
                protected=protected,
            )
        )
        if recorded is payload.answer:
            self.metrics.decided(decision, bundle, answer.variant)
        else:
            self.metrics.replayed()
        return recorded

    def close(self) -> None:
        """Stop following keys and releases, and record what waits."""
        if self.keys:
            self.keys.close()
        self.explainer.close()
        self.releases.close()
        self.log.close()


def nothing_promoted(scorer: Scorer) -> dict[str, str]:
    """What a service answers before the first promotion."""
    return {"status": "nothing promoted yet", "run": scorer.promote}
