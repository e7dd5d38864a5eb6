"""What a simulated policy would have meant: approvals, bad loans, profit and fairness beside the actual ones."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.decisions.policy import Outcome
from cde_domain.governance.fairness import AttributeResult, adverse_impact
from cde_domain.intervals import Interval, mean_interval, normal_interval, wilson
from cde_domain.loan_book import PROTECTED_PREFIX
from cde_domain.portfolio import Economics, Portfolio

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIDES = ("actual", "simulated")
COMMONEST = 3  # reasons shown of each move

RECORDED_SCORES = "recorded scores"
OTHER_SCORES = "scores of the other model"


@dataclass(frozen=True)
class Estimate:
    """A figure of the period's applications with its 95 % interval (None with too few), over so many of them."""

    value: float
    interval: Interval | None
    rows: int


@dataclass(frozen=True)
class Figure:
    """
    One figure under both policies; None where no application enters it.

    `unit` is "share" or "per 100" of the amount named in `said`. `change` is simulated less actual: as both are of the
    same applications, its interval is that of a paired difference, and much narrower than theirs. Intervals say how
    much another draw of applicants would differ, not how wrong a score may be.
    """

    name: str
    said: str
    unit: str
    judged_by: str
    actual: Estimate | None
    simulated: Estimate | None
    change: Estimate | None

    def as_json(self) -> dict[str, Any]:
        """The figure as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Applications:
    """
    The applications of a period in arrays of shape (rows,).

    `amounts` are what was asked for, NaN where unknown and None where the portfolio does not say; `repaid` is 1 or 0
    where the outcome is known and mature, else NaN.
    """

    amounts: Array | None
    repaid: Array


def figures(frame: pd.DataFrame, applications: Applications, economics: Economics) -> list[Figure]:
    """The figures of a table of `simulate`; both sides are judged by the same scores, in turn where there are two."""
    sides = [frame[side].to_numpy() for side in SIDES]
    found = [
        _shares(f"{name}_rate", f"applications that are {said}", [side == outcome.value for side in sides])
        for name, said, outcome in (
            ("approval", "approved", Outcome.APPROVED),
            ("review", "sent to a person", Outcome.MANUAL_REVIEW),
            ("rejection", "rejected", Outcome.REJECTED),
        )
    ]
    approved = [side == Outcome.APPROVED.value for side in sides]
    amounts = applications.amounts
    if amounts is not None:
        weights = np.nan_to_num(amounts)
        found.append(
            _figure(
                "lent", "the amount asked for that is lent", "share", [(weights * _ones(a), weights) for a in approved]
            )
        )
    else:
        weights = np.ones(len(frame))
    recorded, other = (frame[f"{side}_score"].to_numpy(dtype=float) for side in SIDES)
    found += _judged(recorded, RECORDED_SCORES, approved, weights, economics)
    if not np.array_equal(recorded, other, equal_nan=True):
        found += _judged(other, OTHER_SCORES, approved, weights, economics)
    return found + _known(applications.repaid, approved, weights, economics)


def _judged(scores: Array, judge: str, approved: list[Mask], weights: Array, economics: Economics) -> list[Figure]:
    scored = np.isfinite(scores)
    good = np.nan_to_num(scores)
    earned = 100 * (good * economics.margin - (1 - good) * economics.loss_given_default)
    lent = [a & scored for a in approved]
    return [
        _figure("expected_bad_rate", "approved loans", "share", [((1 - good) * a, _ones(a)) for a in lent], judge),
        _figure(
            "expected_profit",
            "what is earned of 100 applied for",
            "per 100",
            [(earned * weights * a, weights * scored) for a in lent],
            judge,
        ),
        _figure(
            "expected_return",
            "what is earned of 100 lent",
            "per 100",
            [(earned * weights * a, weights * a) for a in lent],
            judge,
        ),
    ]


def _known(repaid: Array, approved: list[Mask], weights: Array, economics: Economics) -> list[Figure]:
    known = np.isfinite(repaid)
    if not known.any():
        return []
    good = np.nan_to_num(repaid)
    earned = 100 * (good * economics.margin - (1 - good) * economics.loss_given_default)
    lent = [a & known for a in approved]
    judge = "mature outcomes"
    return [
        _figure(
            "outcome_known",
            "approved loans",
            "share",
            [(_ones(b), _ones(a)) for a, b in zip(approved, lent, strict=True)],
            judge,
        ),
        _figure(
            "bad_rate", "approved loans of known outcome", "share", [((1 - good) * a, _ones(a)) for a in lent], judge
        ),
        _figure(
            "return",
            "what was earned of 100 lent, of known outcome",
            "per 100",
            [(earned * weights * a, weights * a) for a in lent],
            judge,
        ),
    ]


def _shares(name: str, said: str, sides: list[Mask]) -> Figure:
    return _figure(name, said, "share", [(_ones(side), np.ones(len(side))) for side in sides])


def _figure(name: str, said: str, unit: str, sides: Sequence[tuple[Array, Array]], judge: str = "") -> Figure:
    (actual, its_part), (simulated, other_part) = (_ratio(*side) for side in sides)
    change = None
    if actual is not None and simulated is not None:
        parts = other_part - its_part
        interval = mean_interval(parts + simulated.value - actual.value) if len(parts) > 1 else None
        change = Estimate(simulated.value - actual.value, interval, len(parts))
    return Figure(name, said, unit, judge, actual, simulated, change)


def _ones(mask: Mask) -> Array:
    return mask.astype(np.float64)


def _ratio(numerator: Array, denominator: Array) -> tuple[Estimate | None, Array]:
    """A ratio of sums, and by how much each row moves it (its influence, of mean 0); both zero over no rows."""
    total = float(denominator.sum())
    rows = int(np.count_nonzero(denominator))
    if not total:
        return None, np.zeros(len(numerator))
    value = float(numerator.sum()) / total
    influence = len(numerator) * (numerator - value * denominator) / total
    interval: Interval | None = None
    if np.isin(numerator, (0.0, 1.0)).all() and np.isin(denominator, (0.0, 1.0)).all():
        interval = wilson(int(numerator.sum()), rows)
    elif rows > 1:
        interval = normal_interval(value, float(influence.std(ddof=1)) / float(np.sqrt(len(influence))))
    return Estimate(value, interval, rows), influence


def fairness(frame: pd.DataFrame, groups: Mapping[str, pd.Series], portfolio: Portfolio) -> list[dict[str, Any]]:
    """
    Impact ratios of every collected protected attribute under both policies, one row a group.

    `groups` are the groups by attribute, in the frame's order. Verdicts as in `adverse_impact`.
    """
    rows: list[dict[str, Any]] = []
    for attribute in portfolio.protected:
        own = groups.get(attribute.name)
        if own is None or own.isna().all():
            continue
        results = [_impact(frame[side], own, attribute.name, portfolio) for side in SIDES]
        for before, after in zip(results[0].groups, results[1].groups, strict=True):
            row: dict[str, Any] = {"attribute": attribute.name, "group": before.group, "rows": before.rows}
            for side, group in zip(SIDES, (before, after), strict=True):
                row |= {
                    f"{side}_approval_rate": group.approval_rate,
                    f"{side}_impact_ratio": group.impact_ratio,
                    f"{side}_interval": group.interval,
                    f"{side}_verdict": group.verdict.value,
                    f"{side}_compared_with": group.compared_with,
                }
            rows.append(row)
    return rows


def groups_of(decisions: pd.DataFrame) -> dict[str, pd.Series]:
    """The protected groups that were collected with recorded decisions, by attribute."""
    return {
        column.removeprefix(PROTECTED_PREFIX): decisions[column]
        for column in decisions.columns
        if column.startswith(PROTECTED_PREFIX)
    }


def _impact(decisions: pd.Series, groups: pd.Series, name: str, portfolio: Portfolio) -> AttributeResult:
    attribute = next(one for one in portfolio.protected if one.name == name)
    answers = decisions.to_numpy()
    return adverse_impact(
        groups,
        np.asarray(answers == Outcome.APPROVED.value, dtype=bool),
        np.asarray(answers == Outcome.MANUAL_REVIEW.value, dtype=bool),
        attribute=name,
        use=attribute.use,
        why=attribute.why,
        min_ratio=portfolio.thresholds.min_adverse_impact_ratio,
    )


def moves(frame: pd.DataFrame, repaid: Array) -> list[dict[str, Any]]:
    """Which decisions change into which, how many and why, and how bad those loans are by score and by outcome."""
    changed = frame[frame["changed"]].assign(repaid=repaid[frame["changed"].to_numpy()])
    found = []
    for (before, after), part in changed.groupby(["actual", "simulated"]):
        scores, known = part["simulated_score"].dropna(), part["repaid"].dropna()
        reasons = part["why"].value_counts()
        found.append(
            {
                "from": before,
                "to": after,
                "decisions": len(part),
                "expected_bad_rate": float(1 - scores.mean()) if len(scores) else None,
                "outcomes_known": len(known),
                "bad_rate": float(1 - known.mean()) if len(known) else None,
                "why": "; ".join(f"{why} ({count})" for why, count in reasons.head(COMMONEST).items()),
            }
        )
    return sorted(found, key=lambda move: -move["decisions"])
