"""What calibrated scores let one expect before any outcome is known: confidence-based performance estimation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.monitoring.raised import Raised
from cde_domain.decisions.monitoring.reference import Matrix, Reference, log_odds
from cde_domain.intervals import Z, normal_interval, one_sided_z
from cde_domain.model.metrics import Ranking
from cde_domain.portfolio.alarms import Alarms

Array = NDArray[np.float64]

DRAWS = 400
TAIL_DRAWS, RAREST = 5_000, 0.002  # ten of the draws lie beyond the rarest event that they tell of
COMPARED = 5  # a report holds up to three measures against what the scores promised, and two against the reference
MEASURES = ("accuracy", "auc", "brier", "bad_rate")


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; None where it cannot be told, as an AUC without both outcomes."""

    value: float | None
    interval: tuple[float, float] | None

    def as_json(self) -> dict[str, Any]:
        """The estimate as JSON."""
        return {"value": self.value, "interval": list(self.interval) if self.interval else None}


def measures(
    ranking: Ranking, scores: Array, good: Array, cut_off: float, weights: Array | float = 1.0
) -> dict[str, float]:
    """
    Accuracy, AUC, Brier score and bad rate of scores of loans of which the share `good` (0 to 1) is repaid.

    With outcomes as shares they are what was, with the chances of repayment what is to be expected.
    """
    weight = np.broadcast_to(weights, scores.shape)
    right = np.where(scores >= cut_off, good, 1 - good)
    squared = good * (1 - scores) ** 2 + (1 - good) * scores**2
    return {
        "accuracy": float(np.average(right, weights=weight)),
        "auc": ranking.auc(good, weights),
        "brier": float(np.average(squared, weights=weight)),
        "bad_rate": float(1 - np.average(good, weights=weight)),
    }


def expected_performance(
    scores: Array, *, cut_off: float, calibration: Matrix | None = None, seed: int = 0
) -> dict[str, Estimate]:
    """
    The performance to expect of scores of these loans, all of them granted, with 95 % of what outcomes would show.

    A calibrated score is the chance that its loan is repaid, so it says how often it will be wrong (Garg et al. 2022;
    Kivimäki et al. 2025; NannyML calls it CBPE). Scores from `cut_off` on are taken for repayment. The interval holds
    the luck of the draw and, given the calibrator's covariance, that it was fitted to finitely many loans. It assumes
    that repayment still follows from the features as it did in training: where that relation has changed, or the scores
    were never calibrated, the estimate is wrong and nothing here can tell.
    """
    ranking = Ranking(scores)
    expected = measures(ranking, scores, scores, cut_off)
    random = np.random.default_rng(seed)
    drawn = [
        measures(ranking, scores, (random.random(len(scores)) < chances).astype(np.float64), cut_off)
        for chances in _chances(scores, calibration, random)
    ]
    return {name: _estimate(expected[name], [values[name] for values in drawn]) for name in MEASURES}


def promise_limits(
    scores: Array, *, cut_off: float, calibration: Matrix | None, level: float, seed: int = 1
) -> dict[str, tuple[float, float]]:
    """
    What each measure of outcomes as promised falls below, and what it exceeds, with probability `level` each.

    Drawn as in `expected_performance`, more often: few defaults are skewed, and least normal where the limit lies.
    Levels below 0.002 are extrapolated by the ratio of normal quantiles.
    """
    ranking = Ranking(scores)
    expected = measures(ranking, scores, scores, cut_off)
    random = np.random.default_rng(seed)
    drawn = [
        measures(ranking, scores, (random.random(len(scores)) < chances).astype(np.float64), cut_off)
        for chances in _chances(scores, calibration, random, TAIL_DRAWS)
    ]
    told = max(level, RAREST)
    further = one_sided_z(level) / one_sided_z(told)
    limits = {}
    for name in MEASURES:
        values = np.sort([one[name] for one in drawn])
        values = values[np.isfinite(values)]
        beyond = max(1, int(told * (len(values) + 1)))
        if len(values):
            low, high = (
                expected[name] + further * (end - expected[name]) for end in (values[beyond - 1], values[-beyond])
            )
            limits[name] = (float(low), float(high))
    return limits


def _chances(
    scores: Array, calibration: Matrix | None, random: np.random.Generator, draws: int = DRAWS
) -> Iterator[Array]:
    if calibration is None:
        yield from (scores for _ in range(draws))
        return
    odds = log_odds(scores)
    for intercept, slope in random.multivariate_normal([0.0, 1.0], np.array(calibration), draws):
        yield 1 / (1 + np.exp(-(intercept + slope * odds)))


def _estimate(value: float, drawn: list[float]) -> Estimate:
    if not np.isfinite(value) or not np.isfinite(drawn).any():
        return Estimate(None, None)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(float(value), (float(low), float(high)))


def partly_known_performance(scores: Array, repaid: Array, *, cut_off: float, seed: int = 0) -> dict[str, Estimate]:
    """
    Performance over all applicants: by outcome where there is one, by the score's own chance where `repaid` is NaN.

    Outcomes of loans alone are those of the best applicants; an AUC among them is lower than among all and says
    nothing against the score. The interval is over resampled applicants with the missing outcomes drawn.
    """
    ranking, known = Ranking(scores), ~np.isnan(repaid)
    value = measures(ranking, scores, np.where(known, repaid, scores), cut_off)
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(DRAWS):
        good = np.where(known, repaid, random.random(len(scores)) < scores)
        drawn.append(measures(ranking, scores, good, cut_off, random.poisson(1.0, len(scores)).astype(np.float64)))
    return {name: _estimate(value[name], [values[name] for values in drawn]) for name in MEASURES}


def line_alarms(estimates: Mapping[str, Estimate], alarms: Alarms, of: str, prefix: str) -> list[Raised]:
    """Alarms where accuracy or AUC is below the owner's line; `of` says what was measured."""
    lines = {"accuracy": alarms.min_accuracy, "auc": alarms.min_auc}
    titles = {"accuracy": f"accuracy at a cut-off of {alarms.accuracy_cut_off:g}", "auc": "AUC"}
    raised = []
    for name, estimate in estimates.items():
        line, value = lines.get(name), estimate.value
        if line is not None and value is not None and value < line:
            raised.append(Raised(f"{prefix}_{name}_low", f"{titles[name]} {of} is {value:.3f}, below {line:g}"))
    return raised


def reference_alarms(
    estimates: Mapping[str, Estimate], reference: Reference, alarms: Alarms, of: str, prefix: str
) -> list[Raised]:
    """
    Alarms where AUC fell, or the Brier score rose, against the reference by more than allowed and than chance.

    Chance is what happens with probability `false_alarm_rate` over the number of comparisons in a report.
    """
    beyond = one_sided_z(alarms.false_alarm_rate / COMPARED)
    raised = []
    for name, title, before, error, allowed, worse in (
        ("auc", "AUC", reference.auc, reference.auc_error, alarms.max_auc_drop, -1),
        ("brier", "the Brier score", reference.brier, reference.brier_error, alarms.max_brier_rise, 1),
    ):
        now = estimates[name]
        if now.value is None or now.interval is None or before is None or error is None:
            continue
        own = (now.interval[1] - now.interval[0]) / (2 * Z)
        change = worse * (now.value - before)
        both = float(np.hypot(own, error))
        low, high = normal_interval(change, both)
        if change > allowed and change > beyond * both:
            said = f"{title} {of} is {now.value:.3f}, on the champion's {reference.measured_on} {before:.3f}: worse by "
            raised.append(Raised(f"{prefix}_{name}_drop", said + f"{change:.3f} ({low:.3f} to {high:.3f})"))
    return raised
