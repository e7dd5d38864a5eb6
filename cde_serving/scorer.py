"""Scores applications: parse, decide, record, answer."""

import asyncio

import msgspec

from cde_domain.clock import Clock, utc_now
from cde_serving.access.key_ring import KeyRing
from cde_serving.access.rates import Rates
from cde_serving.answers import answer_to
from cde_serving.applications import InvalidApplicationError, parse_application
from cde_serving.decision_log import DecisionLog, KeyReusedError, Record
from cde_serving.follower import ReleaseFollower
from cde_serving.metrics import Metrics
from cde_serving.records.names import iso, record_id_at
from cde_serving.records.record import DEFAULT_TENANT, Payload
from cde_serving.records.versions import VersionsOf

_encode = msgspec.json.Encoder().encode


class NothingPromotedError(RuntimeError):
    """There is no bundle to decide with yet."""


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
        self.promote = promote  # the command that gets a first model promoted
        self.keys = keys
        self.rates = rates
        self._clock = clock
        self._versions = VersionsOf()

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
            known = await asyncio.to_thread(self.log.find, idempotency_key, tenant)
            if known is None:
                raise
            if known.fingerprint != request[1]:
                raise KeyReusedError from None
            return known.payload.answer

    async def _decide(self, body: bytes, request: tuple[str, str] | None, tenant: str) -> bytes:
        bundle = self.releases.serving
        if bundle is None:
            raise NothingPromotedError
        application, request_kept = parse_application(bundle.portfolio.application, body)
        applied_at = self._clock()
        decision = bundle.engine.decide(application, applied_at.date())
        answer = answer_to(application.customer_id, record_id_at(applied_at), applied_at, decision, bundle)
        payload = Payload(
            customer_id=answer.customer_id,
            request=request_kept,
            features=decision.features,
            score=answer.score,
            answer=_encode(answer),
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
                variant=answer.variant,
                versions=self._versions(bundle),
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
            )
        )
        if recorded is payload.answer:
            self.metrics.decided(decision)
        return recorded

    def close(self) -> None:
        """Stop following keys and releases, and record what waits."""
        if self.keys:
            self.keys.close()
        self.releases.close()
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
