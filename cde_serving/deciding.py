"""One decision of one bundle, whatever happens inside it."""

from collections.abc import Sequence
from datetime import date

import structlog
from pydantic import BaseModel

from cde_domain.decisions.engine import Decision, Routing
from cde_domain.decisions.review import failed, reviewed
from cde_domain.release import Bundle
from cde_serving.intake import Intake
from cde_serving.logs import places

log = structlog.get_logger()


def decide_all(bundle: Bundle, intakes: Sequence[Intake], applied_on: date, *, stopped: bool = False) -> list[Decision]:
    """The decision on each application, in one pass of the engine, and as `decide` would take it alone."""
    try:
        decisions = bundle.engine.decide_all([intake.application for intake in intakes], applied_on)
    except Exception:  # whichever of them it was: the others are decided all the same
        return [
            decide(bundle, intake.application, applied_on, fault=intake.fault, stopped=stopped) for intake in intakes
        ]
    return [
        reviewed(decision, fault=intake.fault, stopped=stopped)
        for intake, decision in zip(intakes, decisions, strict=True)
    ]


def decide(
    bundle: Bundle, application: BaseModel, applied_on: date, *, fault: Routing | None = None, stopped: bool = False
) -> Decision:
    """The decision on an application; an exception in features, model or policy sends it to a person."""
    try:
        decision = bundle.engine.decide(application, applied_on)
    except Exception as error:  # a bug or an overflow in the portfolio's code is no reason to turn anybody away
        log.error("decision failed", error=type(error).__name__, bundle=bundle.digest, at=places(error.__traceback__))
        return failed(bundle.engine)
    return reviewed(decision, fault=fault, stopped=stopped)
