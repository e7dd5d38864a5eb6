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
    Measures of scores against outcomes.

    `calibration_error_by_chance` is what perfectly calibrated scores would show in one of twenty such samples.
    """

    rows: int
    repayment_rate: float
    auc: float
    auc_interval: tuple[float, float]
    gini: float
    ks: float
    brier: float
    log_loss: float
    calibration_error: float
    calibration_error_by_chance: float

    @classmethod
    def of(cls, repaid: Array, scores: Array) -> "Performance":
        """Measure scores of shape (rows,) against 0/1 outcomes."""
        area = metrics.auc(repaid, scores)
        return cls(
            rows=len(repaid),
            repayment_rate=float(repaid.mean()),
            auc=area,
            auc_interval=metrics.bootstrap_interval(lambda rows: metrics.auc(repaid[rows], scores[rows]), len(repaid)),
            gini=2 * area - 1,
            ks=metrics.ks(repaid, scores),
            brier=metrics.brier(repaid, scores),
            log_loss=metrics.log_loss(repaid, scores),
            calibration_error=metrics.calibration_error(repaid, scores),
            calibration_error_by_chance=metrics.calibration_error_by_chance(scores),
        )

    def as_json(self) -> dict[str, Any]:
        """The measures as JSON."""
        return {**asdict(self), "auc_interval": list(self.auc_interval)}


def decision_mix(decisions: NDArray[np.str_], repaid: Array) -> dict[str, Any]:
    """The share of each decision, and how many of the approved and rejected loans were not repaid."""
    approved = decisions == Outcome.APPROVED
    rejected = decisions == Outcome.REJECTED
    return {
        "approval_rate": float(approved.mean()),
        "review_rate": float((decisions == Outcome.MANUAL_REVIEW).mean()),
        "rejection_rate": float(rejected.mean()),
        "bad_rate_of_approved": float(1 - repaid[approved].mean()) if approved.any() else None,
        "bad_rate_of_rejected": float(1 - repaid[rejected].mean()) if rejected.any() else None,
    }


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
