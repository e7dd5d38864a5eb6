"""Facts about how well the challenger ranks, estimates and holds under small changes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.policy import Policy
from cde_domain.features.feature import Feature
from cde_domain.governance.facts import MEASURED_HERE, Fact, counted, not_applicable
from cde_domain.governance.fairness import MIN_REPORTED, MIN_VERDICT
from cde_domain.governance.noise import moved_a_little
from cde_domain.intervals import absolute, mean_interval, normal_interval, wilson
from cde_domain.model.metrics import auc, auc_error
from cde_domain.model.monotone import GRID, monotone_violations
from cde_domain.model.scoring_model import ScoringModel

Array = NDArray[np.float64]

ARTEFACT = "evaluation.json"
BAND = 0.05
NOISE = 0.01


def ranking_facts(measured: dict[str, Any], champion: dict[str, Any] | None) -> list[Fact]:
    """AUC and calibration of the part of the evaluation that decides, and the comparison with the champion."""
    low, high = measured["auc_interval"]
    error, chance = measured["calibration_error"], measured["calibration_error_by_chance"]
    slope, slope_interval = measured["calibration_slope"], measured["calibration_slope_interval"]
    facts = [
        Fact("auc", ARTEFACT, measured["auc"], (low, high)),
        Fact("calibration_error", ARTEFACT, error, (max(0.0, error - chance), error)),
        Fact("calibration_slope", ARTEFACT, sufficient=False)
        if slope is None
        else Fact("calibration_slope", ARTEFACT, slope, (slope_interval[0], slope_interval[1])),
    ]
    if champion is None:
        return facts + not_applicable(ARTEFACT, "there is no champion yet", ["auc_delta_vs_champion"])
    if not champion["comparable"]:
        return facts  # a champion that cannot be compared with leaves the fact missing, which fails
    low, high = champion["interval"]
    return [*facts, Fact("auc_delta_vs_champion", ARTEFACT, champion["auc_difference"], (low, high))]


def calibration_facts(scores: Array, repaid: Array, policy: Policy) -> list[Fact]:
    """Whether scores mean what they say: overall, and near both cut-offs."""
    return [
        _gap("abs_mean_p_minus_observed", scores, repaid),
        *(
            _gap(f"abs_gap_around_{name}_cut_off", scores[near], repaid[near])
            for name, cut_off in (("approval", policy.approve_at), ("review", policy.review_at))
            for near in [np.abs(scores - cut_off) <= BAND]
        ),
    ]


def _gap(metric: str, scores: Array, repaid: Array) -> Fact:
    if len(scores) < MIN_REPORTED:
        return Fact(metric, MEASURED_HERE, sufficient=False)
    gaps = scores - repaid
    interval = absolute(mean_interval(gaps))
    return Fact(metric, MEASURED_HERE, abs(float(gaps.mean())), interval, sufficient=len(scores) >= MIN_VERDICT)


def generalisation_facts(training: tuple[Array, Array], holdout: tuple[Array, Array]) -> list[Fact]:
    """How much better the model ranks what it learned from, given (repaid, scores) of both sets."""
    difference = auc(*training) - auc(*holdout)
    error = float(np.hypot(auc_error(*training), auc_error(*holdout)))
    return [Fact("auc_train_minus_holdout", MEASURED_HERE, difference, normal_interval(difference, error))]


def served_form_facts(
    features: tuple[Feature, ...], model: ScoringModel, policy: Policy, training: Array, holdout: Array
) -> list[Fact]:
    """Monotone directions on a grid, and decisions when every number moves by 1 %."""
    violations = monotone_violations(model.trees, features, training)
    random = np.random.default_rng(0)
    moved = moved_a_little(features, holdout, random)
    before, after = (decide_all(features, rows, model.scores(rows), policy) for rows in (holdout, moved))
    flipped, rows = int((before != after).sum()), len(holdout)
    facts = counted(
        MEASURED_HERE,
        {
            "n_monotone_violations": sum(violations.values()),
            "n_monotone_points_per_feature": min(len(training), 200) * GRID,
        },
    )
    flips = Fact("decision_flip_rate_1pct_noise", MEASURED_HERE, flipped / rows, wilson(flipped, rows))
    return [*facts, flips]
