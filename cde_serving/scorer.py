"""Scores applications: parse, decide, record, answer."""

import uuid

import msgspec

from cde_domain.clock import Clock, utc_now
from cde_serving.answers import answer_to
from cde_serving.applications import parse_application
from cde_serving.decision_log import DecisionLog, Record, iso
from cde_serving.follower import ReleaseFollower
from cde_serving.metrics import Metrics

_encode = msgspec.json.Encoder().encode


class NothingPromotedError(RuntimeError):
    """There is no bundle to decide with yet."""


class Scorer:
    """Everything that a running service holds: the followed releases, the decision log, metrics and the clock."""

    def __init__(
        self, releases: ReleaseFollower, log: DecisionLog, metrics: Metrics, clock: Clock = utc_now, *, promote: str
    ) -> None:
        self.releases = releases
        self.log = log
        self.metrics = metrics
        self.promote = promote  # the command that gets a first model promoted
        self._clock = clock

    async def score(self, body: bytes) -> bytes:
        """
        Decide the application in a JSON body, and return the answer once it is recorded.

        Raises:
            NothingPromotedError: no bundle is served yet.
            InvalidApplicationError: the body is no application; nothing was recorded.
            LogBusyError, LogUnavailableError: the decision could not be recorded, so it is not given.
        """
        bundle = self.releases.serving
        if bundle is None:
            raise NothingPromotedError
        application = parse_application(bundle.portfolio.application, body)
        applied_at = self._clock()
        decision = bundle.engine.decide(application, applied_at.date())
        answer = answer_to(application.customer_id, uuid.uuid4().hex, applied_at, decision, bundle)
        content = _encode(answer)
        await self.log.record(
            Record(
                decision_id=answer.decision_id,
                applied_at=iso(applied_at),
                portfolio=answer.portfolio,
                customer_id=answer.customer_id,
                request=application.model_dump_json(exclude_unset=True).encode(),
                features=_encode(decision.features),
                answer=content,
                decision=answer.decision.value,
                score=answer.score,
                bundle=bundle.digest,
                policy_version=answer.policy_version,
                variant=answer.variant,
            )
        )
        self.metrics.decided(decision)
        return content

    def close(self) -> None:
        """Stop following releases and record what waits."""
        self.releases.close()
        self.log.close()
