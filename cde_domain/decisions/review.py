"""What sends a decision to a person although model and policy have one: faults around it, and the kill switch."""

from collections.abc import Sequence
from dataclasses import replace

from cde_domain.decisions.engine import DecidedBy, Decision, DecisionEngine, Routing
from cde_domain.decisions.policy import Outcome

# The application was decided without something that should have been fetched.
ENRICHMENT_FAULTS = (Routing.ENRICHMENT_UNAVAILABLE, Routing.ENRICHMENT_INVALID)

OVERRULING = (*ENRICHMENT_FAULTS, Routing.AUTOMATIC_DECISIONS_STOPPED)


def reviewed(decision: Decision, *, fault: Routing | None = None, stopped: bool = False) -> Decision:
    """
    The decision as it is answered.

    With a fault in what it leans on, nothing is decided automatically, not even what the rest would reject. While
    automatic decisions are stopped, only those that a person would not have seen anyway change their reason.
    """
    if fault is not None:
        return _sent_to_review(decision, fault)
    if stopped and decision.decision is not Outcome.MANUAL_REVIEW:
        return _sent_to_review(decision, Routing.AUTOMATIC_DECISIONS_STOPPED)
    return decision


def reviewed_as(decision: Decision, decided_by: str, reason_codes: Sequence[str]) -> Decision:
    """The decision under the circumstances that a recorded one tells of; to compare the two."""
    codes = reason_codes if decided_by == DecidedBy.FALLBACK else ()
    fault = next((fault for fault in ENRICHMENT_FAULTS if fault in codes), None)
    return reviewed(decision, fault=fault, stopped=Routing.AUTOMATIC_DECISIONS_STOPPED in codes)


def failed(engine: DecisionEngine) -> Decision:
    """The decision where deciding raised an exception: nothing is known but the request."""
    return Decision(
        decision=Outcome.MANUAL_REVIEW,
        score=None,
        decided_by=DecidedBy.FALLBACK,
        reason_codes=(Routing.DECISION_FAILED,),
        risk_factors=(),
        base=engine.model.base,
        contributions={},
        features={},
    )


def _sent_to_review(decision: Decision, why: Routing) -> Decision:
    return replace(
        decision,
        decision=Outcome.MANUAL_REVIEW,
        decided_by=DecidedBy.FALLBACK,
        reason_codes=(why,),
        detail=None,
    )
