"""Candidates fitted on the whole training set: whether they can be served, and what they look like."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.model.compilation import CannotCompileError, compile_trees
from cde_domain.model.compiled import CompiledTrees
from cde_domain.training.boosting import BoostedTrees
from cde_domain.training.candidates.cross_validation import CrossValidated
from cde_domain.training.forest import Forest
from cde_domain.training.histogram import HistogramTrees
from cde_domain.training.learner import Learner
from cde_domain.training.linear import LogisticScore
from cde_domain.training.options import WinsorisedTrees
from cde_domain.training.scorecard import PointsScorecard

Array = NDArray[np.float64]

EXPLAINED_ROWS = 2_000
TIMED_ROWS = 300


def unfit_to_serve(
    candidate: CrossValidated, features: tuple[Feature, ...], matrix: Array, repaid: Array, max_decision_ms: float
) -> str:
    """Why a candidate fitted on the whole training set cannot be served: it does not compile or takes too long."""
    assert candidate.learner is not None
    fitted = candidate.learner.fit(features, matrix, repaid)
    assert isinstance(fitted, BoostedTrees | HistogramTrees | Forest | WinsorisedTrees)
    try:
        trees = compile_trees(fitted.ensemble())
    except CannotCompileError as error:
        return str(error)
    taken = _explanation_us(trees, matrix[:TIMED_ROWS]) / 1000
    return "" if taken <= max_decision_ms else f"an explanation takes {taken:.1f} ms, {max_decision_ms:g} are allowed"


def final_facts(learner: Learner, features: tuple[Feature, ...], matrix: Array, repaid: Array) -> dict[str, Any]:
    """
    What a candidate fitted on the whole training set looks like: its importances, and the scorecard's points.

    Of trees also the size of the compiled form and the median time of one explanation.
    """
    fitted = learner.fit(features, matrix, repaid)
    sample = matrix[:EXPLAINED_ROWS]
    if isinstance(fitted, BoostedTrees | HistogramTrees | Forest | WinsorisedTrees):
        trees = compile_trees(fitted.ensemble())
        return {
            "importance": _importance(features, np.abs(trees.explain(sample)[1]).mean(axis=0)),
            "served_megabytes": trees.megabytes,
            "explanation_us": _explanation_us(trees, matrix[:TIMED_ROWS]),
        }
    facts: dict[str, Any] = {}
    if isinstance(fitted, PointsScorecard | LogisticScore):
        facts["importance"] = _importance(features, fitted.importance(sample))
    if isinstance(fitted, PointsScorecard):
        facts["points"] = fitted.card()
    return facts


def _explanation_us(trees: CompiledTrees, matrix: Array) -> float:
    times = []
    for row in matrix:
        began = time.perf_counter()
        trees.explain(row[None])
        times.append(time.perf_counter() - began)
    return float(np.median(times) * 1e6)


def _importance(features: tuple[Feature, ...], strength: Array) -> list[dict[str, Any]]:
    return [
        {"feature": features[position].name, "mean_absolute_contribution": float(strength[position])}
        for position in np.argsort(-strength, kind="stable")
    ]
