"""Are the explanations exact, and does every rejected applicant get true reasons?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.engine import MAX_REASONS, DecisionEngine
from cde_domain.decisions.policy import Outcome
from cde_domain.governance.faithfulness import faithfulness_facts
from cde_domain.governance.feature_groups import group_facts
from cde_domain.governance.notices import Notices, Population
from cde_domain.governance.stability import baseline_facts, stability_facts

Array = NDArray[np.float64]


def explanation_facts(engine: DecisionEngine, matrix: Array, training: Array, notices: Notices) -> dict[str, Any]:
    """
    Facts about the explanations of a (rows, features) matrix of applications.

    `additivity_error` is the largest |base + sum of contributions - margin|. Baselines and groups of features are those
    of the training set; what is said of reasons is measured on `notices`.
    """
    model, population = engine.model, Population.of(engine, training)
    margins, contributions = model.trees.explain(matrix)
    strength = np.abs(contributions).mean(axis=0)
    order = np.argsort(-strength, kind="stable")
    return {
        "rows": len(matrix),
        "additivity_error": float(np.abs(model.base + contributions.sum(axis=1) - margins).max()),
        "importance": [
            {"feature": model.feature_names[position], "mean_absolute_contribution": float(strength[position])}
            for position in order
        ],
        **_reason_facts(engine, matrix, model.calibrator.scores(margins)),
        "notices": {
            "rows": len(notices),
            "rejected": int(notices.rejected.sum()),
            "reasons_with_favourable_contribution": sum(
                int((notices.contributions[row, list(notices.reasons[row])] >= 0).sum())
                for row in np.flatnonzero(notices.rejected)
            ),
        },
        "baselines": baseline_facts(engine, population, notices),
        "groups": group_facts(engine.portfolio.features, population, notices),
        "faithfulness": faithfulness_facts(engine, population, notices),
        "stability": stability_facts(engine, population, notices),
    }


def _reason_facts(engine: DecisionEngine, matrix: Array, scores: Array) -> dict[str, Any]:
    codes = {feature.reason_code(known=known) for feature in engine.portfolio.features for known in (True, False)}
    codes |= {rule.code for rule in engine.policy.rules}
    adverse = complete = catalogued = 0
    for row in np.flatnonzero(scores < engine.policy.approve_at):
        decision = engine.decide_features(matrix[row : row + 1])
        if decision.decision is not Outcome.REJECTED:
            continue
        adverse += 1
        complete += 1 <= len(decision.reason_codes) <= MAX_REASONS and len(decision.risk_factors) <= MAX_REASONS
        catalogued += codes.issuperset(decision.reason_codes)
    return {
        "rejected": adverse,
        "rejected_with_one_to_four_reasons": complete,
        "rejected_with_catalogued_reasons": catalogued,
    }
