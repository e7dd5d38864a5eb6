"""The answer to an application: what the applicant's lender gets, and what is recorded."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from cde_domain.decisions.engine import DecidedBy, Decision
from cde_domain.decisions.policy import Outcome
from cde_domain.decisions.variants import Variant
from cde_domain.release import Bundle
from cde_serving.records.names import iso
from cde_serving.records.record import Payload, Record, Versions

VERSION_DIGITS = 12  # of the bundle's digest: enough to name a model, short enough to read


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """
    Why: `base` and `contributions` add up to the model's margin, the log-odds of repayment before calibration.

    `detail` names the rule, or the features, behind a decision that the model did not take.
    """

    decided_by: DecidedBy
    space: Literal["margin"] = "margin"
    base: float
    contributions: Mapping[str, float]
    detail: str | None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """
    A decision with its explanation.

    `score` is the calibrated probability of repayment and `confidence` that of the likelier outcome; both are null if
    the model could not score. `risk_factors` come most harmful first.
    """

    decision_id: str
    customer_id: str
    applied_at: Annotated[datetime, msgspec.Meta(tz=True)]
    score: float | None
    decision: Outcome
    confidence: float | None
    explanation: Explanation
    risk_factors: tuple[str, ...]
    reason_codes: tuple[str, ...]
    model_version: str
    policy_version: str
    portfolio: str
    variant: Variant = Variant.CHAMPION


def answer_to(
    customer_id: str,
    decision_id: str,
    applied_at: datetime,
    decision: Decision,
    bundle: Bundle,
    variant: Variant = Variant.CHAMPION,
) -> Answer:
    """The answer that a bundle's decision comes to."""
    return Answer(
        decision_id=decision_id,
        customer_id=customer_id,
        applied_at=applied_at,
        score=decision.score,
        decision=decision.decision,
        confidence=decision.confidence,
        explanation=Explanation(
            decided_by=decision.decided_by,
            base=decision.base,
            contributions=decision.contributions,
            detail=decision.detail,
        ),
        risk_factors=decision.risk_factors,
        reason_codes=decision.reason_codes,
        model_version=bundle.digest[:VERSION_DIGITS],
        policy_version=bundle.engine.policy.version,
        portfolio=bundle.portfolio.name,
        variant=variant,
    )


def record_of(answer: Answer, decided_by: DecidedBy, payload: Payload, versions: Versions, **more: Any) -> Record:
    """The record of an answer; `more` are its fields that no answer has."""
    return Record(
        record_id=answer.decision_id,
        applied_at=iso(answer.applied_at),
        portfolio=answer.portfolio,
        payload=payload,
        decision=answer.decision.value,
        decided_by=decided_by.value,
        reason_codes=answer.reason_codes,
        variant=answer.variant.value,
        versions=versions,
        **more,
    )
