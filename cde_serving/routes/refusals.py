"""From what went wrong to the answer that says so: one status code an error, the same on every route."""

from dataclasses import asdict
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from cde_serving.applications import InvalidApplicationError
from cde_serving.decision_log import ErasedError, KeyInProgressError, KeyReusedError, LogBusyError, LogUnavailableError
from cde_serving.enrichment import LookupsBusyError
from cde_serving.explanations import ExplainerBusyError
from cde_serving.follower import NothingPromotedError
from cde_serving.idempotency import BadKeyError
from cde_serving.records.follow_ups import UnknownDecisionError
from cde_serving.records.record import UnreadableRecordError
from cde_serving.routes.idempotency import BAD_KEY, KEY_REUSED
from cde_serving.routes.responses import json_response
from cde_serving.scorer import Scorer, nothing_promoted

log = structlog.get_logger()

NO_DECISION = {"detail": "There is no such decision"}

REFUSALS = (
    InvalidApplicationError,
    UnknownDecisionError,
    BadKeyError,
    NothingPromotedError,
    ExplainerBusyError,
    LookupsBusyError,
    LogBusyError,
    LogUnavailableError,
    KeyReusedError,
    KeyInProgressError,
    ErasedError,
    UnreadableRecordError,
    SQLAlchemyError,
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
        case ErasedError():
            return 410, {"detail": str(error)}, None
        case NothingPromotedError():
            return 503, nothing_promoted(scorer), None
        case UnreadableRecordError():
            log.error("a recorded decision cannot be read", decision_id=error.decision_id)
            return 503, {"detail": "The recorded decision cannot be read: it was changed or its key is another"}, None
        case _:
            return next((said for kind, said in _ALWAYS.items() if isinstance(error, kind)), _NOT_RECORDED)


_NOT_RECORDED: Final = (503, {"detail": "The decision could not be recorded, so it is not given"}, "5")
_ALWAYS: Final[dict[type[Exception], tuple[int, dict[str, Any], str | None]]] = {
    KeyReusedError: (422, {"detail": [KEY_REUSED]}, None),
    UnknownDecisionError: (404, NO_DECISION, None),
    BadKeyError: (400, BAD_KEY, None),
    KeyInProgressError: (409, {"detail": "A request with this Idempotency-Key is being answered"}, "1"),
    ExplainerBusyError: (503, {"detail": "Too many explanations wait: ask again, or without `explain`"}, "1"),
    LookupsBusyError: (503, {"detail": "Too many lookups at the bureau wait: nothing was decided"}, "1"),
    LogBusyError: (503, {"detail": "Too many decisions wait to be recorded"}, "1"),
    SQLAlchemyError: (503, {"detail": "Decisions cannot be read at the moment"}, "5"),
}
