"""One decision of one bundle, whatever happens inside it."""

import traceback
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
        # Neither the message nor local variables are logged: both may hold an applicant's values.
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        log.error(
            "decision failed",
            error=type(error).__name__,
            bundle=bundle.digest,
            at=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
        )
        return failed(bundle.engine)
    return reviewed(decision, fault=fault, stopped=stopped)
