"""What the champion's evaluation showed: the scores, decisions and performance that today's are held against."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.policy import Outcome
from cde_domain.model.metrics import PsiReference, auc, auc_error, brier

Array = NDArray[np.float64]
Matrix = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Reference:
    """
    Scores, decisions and performance on applications that the champion did not learn from.

    They are those of the hold-out, in a small book of the whole book out of fold (`measured_on`). `scores` and
    `decisions` (by their place in `Outcome`) are shares in bins. `calibration` is the covariance of intercept and slope
    of the calibrator on the log-odds of its own scores, None where the scores are all one: how sure it can be of itself
    after so many loans. AUC and its standard error are None where all loans ended alike.
    """

    measured_on: str
    rows: int
    approved: int
    scores: PsiReference
    decisions: PsiReference
    auc: float | None
    auc_error: float | None
    brier: float
    brier_error: float
    calibration: Matrix | None

    @classmethod
    def of(cls, measured_on: str, repaid: Array, scores: Array, decisions: NDArray[np.str_], fitted: Array) -> Self:
        """Measure a reference; `fitted` are the out-of-fold scores of the loans that the calibrator was fitted to."""
        area, error = auc(repaid, scores), auc_error(repaid, scores)
        return cls(
            measured_on=measured_on,
            rows=len(repaid),
            approved=int((decisions == Outcome.APPROVED).sum()),
            scores=PsiReference.of(scores),
            decisions=PsiReference.of(decision_codes(decisions)),
            auc=area if np.isfinite(area) else None,
            auc_error=error if np.isfinite(error) else None,
            brier=brier(repaid, scores),
            brier_error=float(np.std((scores - repaid) ** 2) / np.sqrt(len(repaid))),
            calibration=calibration_covariance(fitted),
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `as_json` gave."""
        binned = {name: PsiReference(**_tuples(value[name])) for name in ("scores", "decisions")}
        calibration = value["calibration"] and tuple(map(tuple, value["calibration"]))
        return cls(**{**value, **binned, "calibration": calibration})

    def as_json(self) -> dict[str, Any]:
        """The reference as JSON."""
        return asdict(self)


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}


def decision_codes(decisions: NDArray[Any]) -> Array:
    """Each decision by its place in `Outcome`, NaN for what is none."""
    codes = np.full(len(decisions), np.nan)
    for place, outcome in enumerate(Outcome):
        codes[decisions == outcome.value] = place
    return codes


def log_odds(scores: Array) -> Array:
    """The log-odds of scores, which are kept 1e-6 away from 0 and 1."""
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def calibration_covariance(scores: Array) -> Matrix | None:
    """
    The covariance of intercept and slope of a logistic regression of outcomes on these scores' log-odds.

    It is the inverse of Fisher's information at intercept 0 and slope 1, which calibrated scores have.
    """
    design = np.column_stack([np.ones(len(scores)), log_odds(scores)])
    information = design.T @ (design * (scores * (1 - scores))[:, None])
    if not len(scores) or np.linalg.cond(information) > 1e12:
        return None
    (a, b), (c, d) = np.linalg.inv(information).tolist()
    return (a, b), (c, d)
