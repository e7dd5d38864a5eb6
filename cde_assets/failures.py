"""Why a step failed, in words that hold no value of an applicant."""

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

CHECK_FAILED = "DagsterAssetCheckFailedError"


def failure_in_words(event: dg.DagsterEvent) -> str | None:
    """
    Why a step failed; None for a blocking check, which speaks for itself.

    A message of an exception can quote an applicant: only a `dagster.Failure`, whose words were chosen, is quoted.
    """
    failure = event.step_failure_data
    if failure.error is None or failure.error.cls_name == CHECK_FAILED:
        return None
    user = failure.user_failure_data
    return f"{event.step_key}: {user.description if user else _cause(failure.error)}"


def _cause(error: SerializableErrorInfo) -> str:
    while error.cause is not None:
        error = error.cause
    return f"{error.cls_name} (its message can hold personal values and stands in the run's log only)"
