"""Facts about how the challenger was trained: what resampling did to it, and whether it beats a simple benchmark."""

from typing import Any

from cde_domain.governance.facts import Fact, not_applicable
from cde_domain.intervals import Interval, absolute

RECORD = "challenger_model.json"
RESAMPLING = (
    "brier_minus_brier_of_unresampled_twin",
    "mean_score_shift_before_calibration",
    "mean_score_shift_after_calibration",
)


def resampling_facts(training: dict[str, Any]) -> list[Fact]:
    """
    What the challenger's record says about SMOTE and class weights; nothing to prove where neither is on.

    The shift is the distance of the mean score from the repayment rate on out-of-fold rows as they are, before and
    after the sigmoid: before it shows what the cut-offs would have met.
    """
    options = training["options"]
    if options["resampling"] == "none" and not options["class_weights"]:
        why = "trained on rows as they are, without resampling or class weights"
        return not_applicable(RECORD, why, RESAMPLING)
    treated = training["effect"]["variants"][-1]  # with all options; the first is without
    against = treated["against_without"]
    return [
        Fact("brier_minus_brier_of_unresampled_twin", RECORD, against["brier"], _interval(against["brier_interval"])),
        _shift("mean_score_shift_before_calibration", treated["raw"]),
        _shift("mean_score_shift_after_calibration", treated["calibrated"]),
    ]


def benchmark_facts(benchmarks: dict[str, Any]) -> list[Fact]:
    """The AUC of the chosen candidate minus the scorecard's on the same folds, with its paired interval."""
    difference = benchmarks["differences"]["scorecard"]
    interval = _interval(difference["interval"])
    return [Fact("auc_minus_scorecard_auc", "evaluation.json", difference["mean"], interval)]


def _shift(metric: str, measured: dict[str, Any]) -> Fact:
    interval = absolute(_interval(measured["mean_minus_observed_interval"]))
    return Fact(metric, RECORD, abs(measured["mean_minus_observed"]), interval)


def _interval(pair: list[float]) -> Interval:
    return pair[0], pair[1]
