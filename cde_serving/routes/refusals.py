"""From what went wrong to the answer that says so: one status code an error, the same on every route."""

from dataclasses import asdict
from typing import Any

from starlette.responses import Response

from cde_serving.applications import InvalidApplicationError
from cde_serving.decision_log import ErasedError, KeyInProgressError, KeyReusedError, LogBusyError, LogUnavailableError
from cde_serving.explanations import ExplainerBusyError
from cde_serving.follower import NothingPromotedError
from cde_serving.idempotency import BadKeyError
from cde_serving.records.follow_ups import UnknownDecisionError
from cde_serving.routes.decisions import NO_DECISION
from cde_serving.routes.idempotency import BAD_KEY, KEY_REUSED
from cde_serving.routes.responses import json_response
from cde_serving.scorer import Scorer, nothing_promoted

REFUSALS = (
    InvalidApplicationError,
    UnknownDecisionError,
    BadKeyError,
    NothingPromotedError,
    ExplainerBusyError,
    LogBusyError,
    LogUnavailableError,
    KeyReusedError,
    KeyInProgressError,
    ErasedError,
)


def refusal(error: Exception, scorer: Scorer) -> Response:
    """The answer to a request that ended in one of `REFUSALS`."""
    status, body, retry_after = told(error, scorer)
    return json_response(status, body, {"retry-after": retry_after} if retry_after else None)


def told(error: Exception, scorer: Scorer) -> tuple[int, dict[str, Any], str | None]:
    """The status code, what is told, and after how many seconds another try may help."""
    match error:
        case InvalidApplicationError():
            return 422, {"detail": [asdict(problem) for problem in error.problems]}, None
        case KeyReusedError():
            return 422, {"detail": [KEY_REUSED]}, None
        case UnknownDecisionError():
            return 404, NO_DECISION, None
        case BadKeyError():
            return 400, BAD_KEY, None
        case KeyInProgressError():
            return 409, {"detail": "A request with this Idempotency-Key is being answered"}, "1"
        case ErasedError():
            return 410, {"detail": str(error)}, None
        case NothingPromotedError():
            return 503, nothing_promoted(scorer), None
        case ExplainerBusyError():
            return 503, {"detail": "Too many explanations wait: ask again, or without `explain`"}, "1"
        case LogBusyError():
            return 503, {"detail": "Too many decisions wait to be recorded"}, "1"
        case _:
            return 503, {"detail": "The decision could not be recorded, so it is not given"}, "5"
