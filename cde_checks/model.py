"""Statements about the challenger and how it performs."""

from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from cde_domain.features.table import matrix_of
from cde_domain.governance.fairness import SMALL_BOOK
from cde_domain.model.monotone import monotone_violations
from cde_resources.portfolio import PortfolioResource

AGREEMENT = 1e-5  # XGBoost adds up in float32
COMPARED_ROWS = 2_000


def _basis(evaluation: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Small books are judged on out-of-fold scores of all their loans, larger ones on the hold-out."""
    basis = "cross_validation" if evaluation["cross_validation"]["rows"] < SMALL_BOOK else "holdout"
    return basis, evaluation[basis]


@dg.asset_check(asset="evaluation", blocking=True)
def discriminates(portfolio: PortfolioResource, evaluation: dict[str, Any]) -> dg.AssetCheckResult:
    """Good loans are scored above bad ones at least as often as the portfolio asks."""
    basis, measured = _basis(evaluation)
    floor = portfolio.load().thresholds.min_auc
    low, high = measured["auc_interval"]
    passed = bool(measured["auc"] >= floor)
    return dg.AssetCheckResult(
        passed=passed,
        description=None if passed else f"AUC {measured['auc']:.3f} ({low:.3f} to {high:.3f}) is below {floor}",
        metadata={"auc": measured["auc"], "low": low, "high": high, "floor": floor, "measured_on": basis},
    )


@dg.asset_check(asset="evaluation", blocking=True)
def is_calibrated(portfolio: PortfolioResource, evaluation: dict[str, Any]) -> dg.AssetCheckResult:
    """Scores mean what they say: the calibration error is within the limit, or within what chance alone does."""
    basis, measured = _basis(evaluation)
    limit = portfolio.load().thresholds.max_calibration_error
    error, chance = measured["calibration_error"], measured["calibration_error_by_chance"]
    passed = bool(error <= max(limit, chance))
    return dg.AssetCheckResult(
        passed=passed,
        description=None
        if passed
        else f"calibration error {error:.3f} is above {limit} and above chance ({chance:.3f})",
        metadata={"calibration_error": error, "limit": limit, "by_chance": chance, "measured_on": basis},
    )


@dg.asset_check(asset="evaluation", blocking=True)
def is_not_worse_than_the_champion(portfolio: PortfolioResource, evaluation: dict[str, Any]) -> dg.AssetCheckResult:
    """On the same hold-out the challenger does not rank clearly worse than the champion."""
    champion = evaluation["champion"]
    if champion is None:
        return dg.AssetCheckResult(passed=True, metadata={"champion": "none yet"})
    if not champion["comparable"]:
        return dg.AssetCheckResult(passed=False, description=champion["reason"])
    allowed = portfolio.load().thresholds.max_auc_loss_to_champion
    passed = bool(champion["interval"][1] >= -allowed)
    return dg.AssetCheckResult(
        passed=passed,
        description=None if passed else f"AUC changes by {champion['auc_difference']:.3f}, {allowed} may be lost",
        metadata={"auc_difference": champion["auc_difference"], "high": champion["interval"][1], "may_lose": allowed},
    )


@dg.asset_check(asset="evaluation")
def beats_the_benchmark_scorecard(evaluation: dict[str, Any]) -> dg.AssetCheckResult:
    """On the same folds the chosen model ranks better than a points scorecard; advice, not a condition."""
    difference = evaluation["benchmarks"]["differences"]["scorecard"]
    passed = bool(difference["mean"] > 0)
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=None
        if passed
        else f"a scorecard's AUC is higher by {-difference['mean']:.4f}: it may serve as well",
        metadata={
            "auc_difference": difference["mean"],
            "standard_error": difference["standard_error"],
            "low": difference["interval"][0],
            "high": difference["interval"][1],
        },
    )


@dg.asset_check(asset="challenger_model", blocking=True, additional_ins={"training_set": dg.AssetIn()})
def is_monotone(
    portfolio: PortfolioResource, challenger_model: dict[str, Any], training_set: pd.DataFrame
) -> dg.AssetCheckResult:
    """The served form moves with each feature only in its declared direction."""
    lending = portfolio.load()
    trees = portfolio.scoring_model(challenger_model["digest"]).trees
    violations = monotone_violations(trees, lending.features, matrix_of(lending, training_set))
    broken = {name: count for name, count in violations.items() if count}
    return dg.AssetCheckResult(
        passed=not broken,
        description=", ".join(f"{name} moves the wrong way for {count} applicants" for name, count in broken.items())
        or None,
        metadata={"directed_features": len(violations), "violated_features": len(broken)},
    )


@dg.asset_check(asset="challenger_model", blocking=True, additional_ins={"holdout_set": dg.AssetIn()})
def compiled_form_agrees(
    portfolio: PortfolioResource, challenger_model: dict[str, Any], holdout_set: pd.DataFrame
) -> dg.AssetCheckResult:
    """The compiled trees give the margins and contributions of the library's own form."""
    from cde_domain.training.candidates.descriptions import learner_of
    from cde_domain.training.options import WinsorisedTrees

    lending = portfolio.load()
    provenance = challenger_model["provenance"]
    learner = learner_of({"kind": provenance["learner"], "settings": provenance["parameters"]})
    path = portfolio.library_file(challenger_model["digest"], challenger_model["library"])
    theirs = learner.load(lending.features, path)
    if bounds := provenance.get("winsorised_at"):
        theirs = WinsorisedTrees.of(theirs, bounds)
    matrix = matrix_of(lending, holdout_set.head(COMPARED_ROWS))
    margins, contributions = portfolio.scoring_model(challenger_model["digest"]).trees.explain(matrix)
    scale = max(1.0, float(np.abs(margins).max()))
    margin_gap = float(np.abs(theirs.margins(matrix) - margins).max()) / scale
    contribution_gap = float(np.abs(theirs.contributions(matrix) - contributions).max()) / scale
    passed = max(margin_gap, contribution_gap) <= AGREEMENT
    return dg.AssetCheckResult(
        passed=passed,
        metadata={
            "rows": len(matrix),
            "margin_gap": margin_gap,
            "contribution_gap": contribution_gap,
            "limit": AGREEMENT,
        },
    )
