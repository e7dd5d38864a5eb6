"""Many decisions at once with what led to each: as the engine answers one by one, at the price of a batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.engine import DecidedBy, DecisionEngine
from cde_domain.decisions.policy import Outcome

Array = NDArray[np.float64]

EXPLAINED_AT_ONCE = 4096


@dataclass(frozen=True)
class Explained:
    """Decisions of rows: arrays of shape (rows,), `reason_codes` as long; a score is NaN where there is none."""

    scores: Array
    decisions: NDArray[np.object_]
    decided_by: NDArray[np.object_]
    reason_codes: list[tuple[str, ...]]


def explained(engine: DecisionEngine, matrix: Array) -> Explained:
    """
    Decide every row of a (rows, features) matrix.

    Contributions are worked out for those alone who are not approved: an approval has no reasons.
    """
    scores = engine.model.scores(matrix)
    decisions = decide_all(engine.portfolio.features, matrix, scores, engine.policy, engine.model).astype(object)
    decided_by = np.full(len(matrix), DecidedBy.MODEL.value, dtype=object)
    reasons: list[tuple[str, ...]] = [()] * len(matrix)
    others = np.flatnonzero(decisions != Outcome.APPROVED.value)
    for first in range(0, len(others), EXPLAINED_AT_ONCE):
        part = others[first : first + EXPLAINED_AT_ONCE]
        for row, decision in zip(part.tolist(), engine.decide_rows(matrix[part]), strict=True):
            decisions[row], decided_by[row] = decision.decision.value, decision.decided_by.value
            reasons[row] = tuple(map(str, decision.reason_codes))
    valid = (scores >= 0.0) & (scores <= 1.0)
    return Explained(np.where(valid, scores, np.nan), decisions, decided_by, reasons)
