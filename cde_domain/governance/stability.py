"""Would an applicant be told the same if a number were a little off, or if others had just passed?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.governance.noise import moved_a_little
from cde_domain.governance.notices import Notices, Population, mean_interval, overlaps, reasons_against
from cde_domain.intervals import wilson

Array = NDArray[np.float64]

DRAWS = 5
BASELINES = 10


def baseline_facts(engine: DecisionEngine, population: Population, notices: Notices) -> dict[str, Any]:
    """Reasons against those who just passed, compared with reasons against all applicants (comment 5 names both)."""
    everybody = population.contributions.mean(axis=0)
    others = reasons_against(notices.contributions, everybody)
    same = np.array([one[:1] == other[:1] for one, other in zip(notices.reasons, others, strict=True)])
    jaccard = overlaps(notices.reasons, others)
    return {
        "stated": "approved applicants at or slightly above the cut-off",
        "stated_rows": len(population.passed),
        "compared": "all applicants",
        "compared_rows": len(population.matrix),
        "same_first_reason": float(same.mean()) if len(notices) else None,
        "same_first_reason_interval": list(wilson(int(same.sum()), len(same))) if len(notices) else None,
        "same_reasons": float((jaccard == 1).mean()) if len(notices) else None,
        "top4_jaccard": float(jaccard.mean()) if len(notices) else None,
        "top4_jaccard_interval": _interval(jaccard),
    }


def stability_facts(engine: DecisionEngine, population: Population, notices: Notices) -> dict[str, Any]:
    """Reasons, order of contributions and decisions under 1 % of noise, and reasons under resampled baselines."""
    if not len(notices):
        return {"notices": 0}
    features, model, random = engine.portfolio.features, engine.model, np.random.default_rng(0)
    baseline = np.array(model.reason_baseline)
    before = _decisions(engine, notices.matrix)
    jaccard, ranks, changed = [], [], []
    for _ in range(DRAWS):
        moved = moved_a_little(features, notices.matrix, random)
        _, contributions = model.trees.explain(moved)
        jaccard.append(overlaps(notices.reasons, reasons_against(contributions, baseline)))
        ranks.append(rank_correlations(notices.contributions, contributions))
        changed.append(_decisions(engine, moved) != before)
    passed = population.contributions[population.passed]
    resampled = [
        overlaps(
            notices.reasons,
            reasons_against(notices.contributions, passed[random.integers(0, len(passed), len(passed))].mean(axis=0)),
        )
        for _ in range(BASELINES)
    ]
    by_noise, by_baseline, order = (np.mean(values, axis=0) for values in (jaccard, resampled, ranks))
    return {
        "notices": len(notices),
        "noise": {
            "draws": DRAWS,
            "top4_jaccard": float(by_noise.mean()),
            "top4_jaccard_interval": _interval(by_noise),
            "rank_correlation": float(order.mean()),
            "rank_correlation_interval": _interval(order),
            "decisions_changed": float(np.mean(changed)),
        },
        "baselines": {
            "draws": BASELINES,
            "top4_jaccard": float(by_baseline.mean()),
            "top4_jaccard_interval": _interval(by_baseline),
        },
    }


def rank_correlations(one: Array, other: Array) -> Array:
    """Spearman's correlation of each pair of rows of two (rows, features) matrices; 1 where nothing varies."""
    from scipy.stats import rankdata  # a second to import

    first, second = (rankdata(values, axis=1) for values in (one, other))
    first, second = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.divide((first * second).sum(axis=1), scale, out=np.ones(len(scale)), where=scale > 0)


def _decisions(engine: DecisionEngine, matrix: Array) -> NDArray[np.str_]:
    return decide_all(engine.portfolio.features, matrix, engine.model.scores(matrix), engine.policy)


def _interval(values: Array) -> list[float] | None:
    return list(mean_interval(values)) if len(values) > 1 else None
