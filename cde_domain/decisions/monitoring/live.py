"""How the champion's scores did once outcomes are known."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.monitoring.estimated import (
    COMPARED,
    Estimate,
    expected_performance,
    line_alarms,
    partly_known_performance,
    promise_limits,
    reference_alarms,
)
from cde_domain.decisions.monitoring.raised import Raised, as_json
from cde_domain.decisions.monitoring.reference import Matrix, Reference
from cde_domain.intervals import wilson
from cde_domain.model.evaluation import Performance
from cde_domain.model.metrics import calibration_bins
from cde_domain.portfolio.alarms import Alarms

Array = NDArray[np.float64]

BANDS = 10
OF_LOANS, OF_APPLICANTS = "of the loans with an outcome", "of all applicants"


def live_performance(scores: Array, repaid: Array, reference: Reference | None, alarms: Alarms) -> dict[str, Any]:
    """
    How the scores of mature decisions, of shape (rows,), did by their outcomes, NaN where there is none.

    Only granted loans have an outcome, so three things are told apart: `loans` is measured on them alone; `expected` is
    what the scores promised of the very same loans, and so bears the same selection; `applicants` takes the scores'
    word for whoever has no outcome, which makes it comparable with the hold-out and with the owner's line for the AUC.
    Too few outcomes are not judged. Where all loans ended alike there is no AUC of them, and the rest is judged.

    Where every loan does as its score says, a report raises an alarm with the probability `false_alarm_rate` at most
    (Bonferroni over its five comparisons with a promise or the reference). An owner's line has no such level: whatever
    is measured below it is told.
    """
    known = ~np.isnan(repaid)
    outcomes, own = repaid[known], scores[known]
    judged = len(outcomes) >= alarms.min_outcomes
    report: dict[str, Any] = {
        "mature": len(scores),
        "outcomes": len(outcomes),
        "cut_off": alarms.accuracy_cut_off,
        "judged": judged,
        "alarms": [],
    }
    if not judged:
        return report
    cut_off = alarms.accuracy_cut_off
    performance = Performance.of(outcomes, own)
    loans = _of_loans(performance, own, outcomes, cut_off)
    calibration = reference.calibration if reference else None
    expected = expected_performance(own, cut_off=cut_off, calibration=calibration)
    applicants = partly_known_performance(scores, repaid, cut_off=cut_off)
    raised = [
        *line_alarms({"accuracy": loans["accuracy"]}, alarms, OF_LOANS, "live"),
        *line_alarms({"auc": applicants["auc"]}, alarms, OF_APPLICANTS, "live"),
        *_promise_alarms(loans, expected, own, calibration, alarms),
        *(reference_alarms(applicants, reference, alarms, OF_APPLICANTS, "live") if reference else ()),
    ]
    return report | {
        "loans": _plain(loans),
        "expected": _plain(expected),
        "applicants": _plain(applicants),
        "performance": performance.as_json(),
        "calibration": _calibration(outcomes, own),
        "bands": score_bands(own, outcomes, reference),
        "alarms": as_json(raised),
    }


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.as_json() for name, estimate in estimates.items()}


def _of_loans(performance: Performance, scores: Array, repaid: Array, cut_off: float) -> dict[str, Estimate]:
    rows = len(scores)
    right, bad = int(((scores >= cut_off) == (repaid == 1)).sum()), int((repaid == 0).sum())
    return {
        "accuracy": Estimate(right / rows, wilson(right, rows)),
        "auc": Estimate(None, None)
        if np.isnan(performance.auc)
        else Estimate(performance.auc, performance.auc_interval),
        "brier": Estimate(performance.brier, performance.brier_interval),
        "bad_rate": Estimate(bad / rows, wilson(bad, rows)),
    }


def _promise_alarms(
    loans: Mapping[str, Estimate],
    expected: Mapping[str, Estimate],
    scores: Array,
    calibration: Matrix | None,
    alarms: Alarms,
) -> list[Raised]:
    """
    Alarms where loans did worse than their scores promised, by more than allowed and than the luck of the draw.

    Luck is what happens with probability `false_alarm_rate` over the number of comparisons in a report.
    """
    level = alarms.false_alarm_rate / COMPARED
    limits: Mapping[str, tuple[float, float]] | None = None  # thousands of draws, which most reports do without
    raised = []
    for name, title, allowed, worse in (
        ("auc", "the AUC", alarms.max_auc_drop, -1),
        ("brier", "the Brier score", alarms.max_brier_rise, 1),
        ("bad_rate", "the share not repaid", alarms.max_bad_rate_rise, 1),
    ):
        now, promised = loans[name], expected[name]
        if now.value is None or promised.value is None or promised.interval is None:
            continue
        low, high = promised.interval
        beyond = now.value < low if worse < 0 else now.value > high
        if not beyond or worse * (now.value - promised.value) <= allowed:
            continue
        if limits is None:
            limits = promise_limits(scores, cut_off=alarms.accuracy_cut_off, calibration=calibration, level=level)
        lowest, highest = limits[name]
        if now.value < lowest if worse < 0 else now.value > highest:
            said = f"{title} {OF_LOANS} is {now.value:.3f}; their scores promised {promised.value:.3f}"
            raised.append(Raised(f"live_{name}_not_as_promised", f"{said} ({low:.3f} to {high:.3f})"))
    return raised


def _calibration(repaid: Array, scores: Array) -> list[dict[str, Any]]:
    return [
        {
            "mean_score": score,
            "repaid": rate,
            "interval": list(wilson(round(rate * rows), int(rows))),
            "rows": int(rows),
        }
        for score, rate, rows in calibration_bins(repaid, scores).tolist()
    ]


def score_bands(scores: Array, repaid: Array, reference: Reference | None = None) -> list[dict[str, Any]]:
    """
    Bad rates by score with their intervals, best band first, beside what the scores expect.

    Bands end where the reference's do, so that they can be compared over time; without one they hold equally many.
    """
    edges = (
        np.array(reference.scores.edges)
        if reference
        else np.unique(np.quantile(scores, np.linspace(0, 1, BANDS + 1)[1:-1]))
    )
    band = np.searchsorted(edges, scores, side="right")
    rows = []
    for number in sorted(set(band.tolist()), reverse=True):
        inside = band == number
        bad, count = int((repaid[inside] == 0).sum()), int(inside.sum())
        rows.append(
            {
                "from": float(edges[number - 1]) if number else 0.0,
                "to": float(edges[number]) if number < len(edges) else 1.0,
                "rows": count,
                "bad_rate": bad / count,
                "interval": list(wilson(bad, count)),
                "expected_bad_rate": float(1 - scores[inside].mean()),
            }
        )
    return rows
