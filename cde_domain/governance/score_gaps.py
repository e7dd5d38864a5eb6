"""The score itself by group: how far apart the groups' scores lie, and whether they mean and rank alike."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.governance.fairness import MIN_REPORTED, MIN_VERDICT, members_of
from cde_domain.intervals import Interval, mean_interval, normal_interval
from cde_domain.model.metrics import auc, auc_interval

Array = NDArray[np.float64]

MIN_SMD = 100


@dataclass(frozen=True)
class ScoreGap:
    """
    The scores of one group.

    `smd` is the standardised mean difference of its scores to the reference group's (None for that group),
    `calibration_gap` its mean score minus its repayment rate, `auc` how well the score ranks within it (None without 30
    loans of either outcome). Intervals are at 95 %; nothing is computed under 30 rows, and `sufficient` names the
    measures that the group is large enough to be judged by.
    """

    group: str
    rows: int
    repaid: int
    mean_score: float | None = None
    smd: float | None = None
    smd_interval: Interval | None = None
    calibration_gap: float | None = None
    calibration_interval: Interval | None = None
    auc: float | None = None
    auc_interval: Interval | None = None
    sufficient: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The result as JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def score_gaps(groups: pd.Series, scores: Array, repaid: Array, *, reference: str | None) -> tuple[ScoreGap, ...]:
    """The scores of each group against those of the reference group and against what became of its loans."""
    members = members_of(groups)
    return tuple(
        _gap(group, member, scores, repaid, None if group == reference else members.get(str(reference)))
        for group, member in members.items()
    )


def _gap(
    group: str, member: NDArray[np.bool_], scores: Array, repaid: Array, reference: NDArray[np.bool_] | None
) -> ScoreGap:
    own, outcome = scores[member], repaid[member]
    rows, good = len(own), int(outcome.sum())
    if rows < MIN_REPORTED:
        return ScoreGap(group, rows, good)
    gap = own - outcome
    sufficient = ["calibration_gap"] if rows >= MIN_VERDICT else []
    measures: dict[str, Any] = {}
    if reference is not None and reference.sum() >= MIN_REPORTED:
        measures |= _smd(own, scores[reference])
        sufficient += ["smd"] if rows >= MIN_SMD and reference.sum() >= MIN_SMD else []
    if min(good, rows - good) >= MIN_REPORTED:
        measures |= {"auc": auc(outcome, own), "auc_interval": auc_interval(outcome, own)}
        sufficient += ["auc"] if rows >= MIN_VERDICT else []
    return ScoreGap(
        group,
        rows,
        good,
        mean_score=float(own.mean()),
        calibration_gap=float(gap.mean()),
        calibration_interval=mean_interval(gap),
        sufficient=tuple(sufficient),
        **measures,
    )


def _smd(own: Array, other: Array) -> dict[str, Any]:
    freedom = len(own) + len(other) - 2
    pooled = np.sqrt(((len(own) - 1) * own.var(ddof=1) + (len(other) - 1) * other.var(ddof=1)) / freedom)
    if pooled == 0:
        return {"smd": 0.0, "smd_interval": (0.0, 0.0)} if own.mean() == other.mean() else {}
    smd = float((own.mean() - other.mean()) / pooled)
    error = np.sqrt(1 / len(own) + 1 / len(other) + smd**2 / (2 * (len(own) + len(other))))
    return {"smd": smd, "smd_interval": normal_interval(smd, error)}
