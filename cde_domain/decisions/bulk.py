"""Many decisions at once: what the engine would answer, for evaluation and fairness, without explanations."""

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.policy import Outcome, Policy, Rule
from cde_domain.features.feature import Feature
from cde_domain.model.scoring_model import ScoringModel

Array = NDArray[np.float64]


def decide_all(
    features: tuple[Feature, ...], matrix: Array, scores: Array, policy: Policy, model: ScoringModel | None = None
) -> NDArray[np.str_]:
    """
    The decision of every row of a (rows, features) matrix with the given scores, of dtype str.

    With `model`, rows outside what it was trained on go to MANUAL_REVIEW, as in the service.
    """
    decisions = np.where(
        scores >= policy.approve_at,
        Outcome.APPROVED.value,
        np.where(scores >= policy.review_at, Outcome.MANUAL_REVIEW.value, Outcome.REJECTED.value),
    )
    if model is not None:
        decisions[_outside_range(matrix, model)] = Outcome.MANUAL_REVIEW.value
    decisions[~np.isfinite(scores)] = Outcome.MANUAL_REVIEW.value
    positions = {feature.name: position for position, feature in enumerate(features)}
    for rule in reversed(policy.rules):  # the first rule that matches wins, so it is written last
        position = positions[rule.when.feature]
        values = matrix[:, position]
        unknown = np.isnan(values)
        decisions[_holds(rule, features[position], values) & ~unknown] = rule.decision.value
        decisions[unknown] = Outcome.MANUAL_REVIEW.value
    return decisions


def _holds(rule: Rule, feature: Feature, values: Array) -> NDArray[np.bool_]:
    condition = rule.when
    holds = np.ones(len(values), dtype=bool)
    if condition.is_any_of is not None:
        holds &= np.isin(values, [feature.categories.index(category) for category in condition.is_any_of])
    if condition.above is not None:
        holds &= values > condition.above
    if condition.below is not None:
        holds &= values < condition.below
    return holds


def _outside_range(matrix: Array, model: ScoringModel) -> NDArray[np.bool_]:
    outside = np.zeros(len(matrix), dtype=bool)
    for values, bounds, unknown_seen in zip(matrix.T, model.ranges, model.unknown_seen, strict=True):
        known = ~np.isnan(values)
        inside = np.zeros(len(values), dtype=bool) if bounds is None else (values >= bounds[0]) & (values <= bounds[1])
        outside |= np.where(known, ~inside, not unknown_seen)
    return outside
