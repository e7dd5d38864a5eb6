"""One decision of one bundle, whatever happens inside it."""

import traceback
from collections.abc import Sequence
from datetime import date

import structlog
from pydantic import BaseModel

from cde_domain.decisions.engine import Decision, Routing
from cde_domain.decisions.review import failed, reviewed
from cde_domain.release import Bundle

log = structlog.get_logger()


def decide(
    bundle: Bundle, application: BaseModel, applied_on: date, *, fault: Routing | None = None, stopped: bool = False
) -> Decision:
    """The decision on an application; an exception in features, model or policy sends it to a person."""
    try:
        decision = bundle.engine.decide(application, applied_on)
    except Exception as error:  # a bug or an overflow in the portfolio's code is no reason to turn anybody away
        return _failed(bundle, error)
    return reviewed(decision, fault=fault, stopped=stopped)


def decide_all(
    bundle: Bundle,
    applications: Sequence[BaseModel],
    applied_on: date,
    *,
    faults: Sequence[Routing | None],
    stopped: bool = False,
) -> list[Decision]:
    """The decisions on applications in one pass; one that raises an exception takes no other with it."""
    try:
        decisions = bundle.engine.decide_all(applications, applied_on)
    except Exception as error:
        if len(applications) == 1:
            return [_failed(bundle, error)]
        return [
            decision
            for application, fault in zip(applications, faults, strict=True)
            for decision in decide_all(bundle, [application], applied_on, faults=[fault], stopped=stopped)
        ]
    return [reviewed(one, fault=fault, stopped=stopped) for one, fault in zip(decisions, faults, strict=True)]


def _failed(bundle: Bundle, error: Exception) -> Decision:
    # Neither the message nor local variables are logged: both may hold an applicant's values.
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    log.error(
        "decision failed",
        error=type(error).__name__,
        bundle=bundle.digest,
        at=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    )
    return failed(bundle.engine)
