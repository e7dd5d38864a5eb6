"""Are the explanations exact, and does every rejected applicant get true reasons?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.engine import MAX_REASONS, DecidedBy, DecisionEngine
from cde_domain.decisions.policy import Outcome

Array = NDArray[np.float64]


def explanation_facts(engine: DecisionEngine, matrix: Array) -> dict[str, Any]:
    """
    Facts about the explanations of a (rows, features) matrix of applications.

    `additivity_error` is the largest |base + sum of contributions - margin|. `repair_rate` is the share of applications
    rejected by the model whose margin rises when the features cited as reasons are set to the values of the applicant
    who was scored just above the cut-off.
    """
    model = engine.model
    margins, contributions = model.trees.explain(matrix)
    scores = model.calibrator.scores(margins)
    strength = np.abs(contributions).mean(axis=0)
    order = np.argsort(-strength, kind="stable")
    return {
        "rows": len(matrix),
        "additivity_error": float(np.abs(model.base + contributions.sum(axis=1) - margins).max()),
        "importance": [
            {"feature": model.feature_names[position], "mean_absolute_contribution": float(strength[position])}
            for position in order
        ],
        **_reason_facts(engine, matrix, margins, scores),
    }


def _reason_facts(engine: DecisionEngine, matrix: Array, margins: Array, scores: Array) -> dict[str, Any]:
    positions = {
        feature.reason_code(known=known): position
        for position, feature in enumerate(engine.portfolio.features)
        for known in (True, False)
    }
    codes = positions.keys() | {rule.code for rule in engine.policy.rules}
    example = _just_approved(scores, engine.policy.approve_at)
    adverse = complete = catalogued = repaired = by_model = 0
    for row in np.flatnonzero(scores < engine.policy.approve_at):
        decision = engine.decide_features(matrix[row : row + 1])
        if decision.decision is not Outcome.REJECTED:
            continue
        adverse += 1
        complete += 1 <= len(decision.reason_codes) <= MAX_REASONS
        catalogued += codes.issuperset(decision.reason_codes)
        if decision.decided_by is DecidedBy.MODEL and example is not None:
            by_model += 1
            better = matrix[row].copy()
            cited = [positions[code] for code in decision.reason_codes]
            better[cited] = matrix[example, cited]
            repaired += bool(engine.model.trees.margins(better[None])[0] > margins[row])
    return {
        "rejected": adverse,
        "rejected_with_one_to_four_reasons": complete,
        "rejected_with_catalogued_reasons": catalogued,
        "rejected_by_model": by_model,
        "repair_rate": repaired / by_model if by_model else None,
    }


def _just_approved(scores: Array, approve_at: float) -> int | None:
    passing = np.flatnonzero(scores >= approve_at)
    return int(passing[np.argmin(scores[passing])]) if len(passing) else None
