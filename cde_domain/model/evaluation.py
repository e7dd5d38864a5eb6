"""How good a score is: the numbers of the evaluation report."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.policy import Outcome
from cde_domain.model import metrics

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Performance:
    """
    Measures of scores against outcomes, with 95 % intervals of four.

    `calibration_error_by_chance` is what perfectly calibrated scores would show in one of twenty such samples.
    The calibration slope is None where it cannot be fitted. AUC, Gini and KS, which compare good loans with bad ones,
    are NaN where all ended alike.
    """

    rows: int
    repayment_rate: float
    auc: float
    auc_interval: tuple[float, float]
    gini: float
    ks: float
    ks_interval: tuple[float, float]
    brier: float
    brier_interval: tuple[float, float]
    log_loss: float
    calibration_error: float
    calibration_error_by_chance: float
    calibration_slope: float | None
    calibration_slope_interval: tuple[float, float] | None

    @classmethod
    def of(cls, repaid: Array, scores: Array) -> "Performance":
        """Measure scores of shape (rows,) against 0/1 outcomes."""
        area = metrics.auc(repaid, scores)
        intervals = metrics.bootstrap_intervals(repaid, scores)
        slope, slope_interval = metrics.calibration_slope(repaid, scores) or (None, None)
        return cls(
            rows=len(repaid),
            repayment_rate=float(repaid.mean()),
            auc=area,
            auc_interval=intervals.auc,
            gini=2 * area - 1,
            ks=metrics.ks(repaid, scores),
            ks_interval=intervals.ks,
            brier=metrics.brier(repaid, scores),
            brier_interval=intervals.brier,
            log_loss=metrics.log_loss(repaid, scores),
            calibration_error=metrics.calibration_error(repaid, scores),
            calibration_error_by_chance=metrics.calibration_error_by_chance(scores),
            calibration_slope=slope,
            calibration_slope_interval=slope_interval,
        )

    def as_json(self) -> dict[str, Any]:
        """The measures as JSON, null where there is none."""
        measured = {
            name: None if np.isnan(np.array(value, dtype=float)).any() else value
            for name, value in asdict(self).items()
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in measured.items()}


def decision_mix(decisions: NDArray[np.str_], repaid: Array) -> dict[str, Any]:
    """The share of each decision, and how many of the approved and rejected loans were not repaid."""
    approved = decisions == Outcome.APPROVED
    rejected = decisions == Outcome.REJECTED
    return {
        "approval_rate": float(approved.mean()),
        "review_rate": float((decisions == Outcome.MANUAL_REVIEW).mean()),
        "rejection_rate": float(rejected.mean()),
        "bad_rate_of_approved": bad_rate(repaid[approved]),
        "bad_rate_of_rejected": bad_rate(repaid[rejected]),
    }


def bad_rate(repaid: Array) -> float | None:
    """The share of loans that were not repaid; None if there is no loan."""
    return float(1 - repaid.mean()) if len(repaid) else None


def compare(repaid: Array, challenger: Array, champion: Array) -> dict[str, Any]:
    """The difference in AUC of two scores of the same loans, challenger minus champion, with its paired interval."""
    interval = metrics.bootstrap_interval(
        lambda rows: metrics.auc(repaid[rows], challenger[rows]) - metrics.auc(repaid[rows], champion[rows]),
        len(repaid),
    )
    champion_auc = metrics.auc(repaid, champion)
    return {
        "champion_auc": champion_auc,
        "auc_difference": metrics.auc(repaid, challenger) - champion_auc,
        "interval": list(interval),
    }


def swap_set(repaid: Array, challenger: NDArray[np.str_], champion: NDArray[np.str_]) -> dict[str, Any]:
    """
    Whose decision would change with the challenger.

    Swapped in are those that only the challenger approves, swapped out those that only the champion does.
    """
    swapped_in = (challenger == Outcome.APPROVED) & (champion != Outcome.APPROVED)
    swapped_out = (challenger != Outcome.APPROVED) & (champion == Outcome.APPROVED)
    both = (challenger == Outcome.APPROVED) & (champion == Outcome.APPROVED)
    return {
        "rows": len(repaid),
        "changed": int((challenger != champion).sum()),
        **{
            name: {"count": int(rows.sum()), "bad_rate": bad_rate(repaid[rows])}
            for name, rows in (("swapped_in", swapped_in), ("swapped_out", swapped_out), ("approved_by_both", both))
        },
        "moves": [
            {
                "champion": str(before),
                "challenger": str(after),
                "count": int(rows.sum()),
                "bad_rate": bad_rate(repaid[rows]),
            }
            for before in Outcome
            for after in Outcome
            for rows in [(champion == before) & (challenger == after)]
            if before != after and rows.any()
        ],
    }


def by_quarter(applied_at: NDArray[np.datetime64], repaid: Array, scores: Array) -> list[dict[str, Any]]:
    """The measures by quarter of application; AUC is None in a quarter whose loans all ended alike."""
    quarters = applied_at.astype("datetime64[M]").astype(np.int64) // 3
    rows = []
    for quarter in np.unique(quarters):
        inside = quarters == quarter
        area = metrics.auc(repaid[inside], scores[inside])
        rows.append(
            {
                "quarter": f"{1970 + quarter // 4}-Q{quarter % 4 + 1}",
                "rows": int(inside.sum()),
                "bad_rate": bad_rate(repaid[inside]),
                "expected_bad_rate": float(1 - scores[inside].mean()),
                "auc": area if np.isfinite(area) else None,
                "brier": metrics.brier(repaid[inside], scores[inside]),
            }
        )
    return rows
