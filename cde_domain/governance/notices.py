"""The applications that a notice could be about, each with the reasons that the notice would name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cde_domain import intervals
from cde_domain.decisions.engine import MAX_REASONS, DecidedBy, DecisionEngine
from cde_domain.decisions.policy import Outcome
from cde_domain.intervals import Interval
from cde_domain.model.baseline import just_passed

Array = NDArray[np.float64]
Reasons = tuple[int, ...]

MOST_NOTICES = 500


@dataclass(frozen=True)
class Population:
    """
    A model's applicants: features, contributions, both of shape (rows, features), and who of them just passed.

    `passed` holds positions of rows: approved applicants scored at or slightly above the cut-off.
    """

    matrix: Array
    contributions: Array
    passed: NDArray[np.intp]

    @classmethod
    def of(cls, engine: DecisionEngine, matrix: Array) -> "Population":
        """The population of a (rows, features) matrix."""
        margins, contributions = engine.model.trees.explain(matrix)
        scores = engine.model.calibrator.scores(margins)
        return cls(matrix, contributions, just_passed(scores, engine.policy.approve_at))


@dataclass(frozen=True)
class Notices:
    """
    Applications that the model, and no rule, did not approve: rejected, or sent to a person who may reject them.

    `rows` are their positions in the matrix they were taken from; `matrix` and `contributions` have the shape (notices,
    features); `reasons` are the positions of at most four features each, the strongest first.
    """

    rows: NDArray[np.intp]
    matrix: Array
    margins: Array
    contributions: Array
    rejected: NDArray[np.bool_]
    reasons: tuple[Reasons, ...]

    @classmethod
    def of(cls, engine: DecisionEngine, matrix: Array) -> "Notices":
        """The notices of a (rows, features) matrix, at most 500 of them drawn at random."""
        margins, contributions = engine.model.trees.explain(matrix)
        below = np.flatnonzero(engine.model.calibrator.scores(margins) < engine.policy.approve_at)
        rows, rejected = [], []
        for row in np.random.default_rng(0).permutation(below):
            decision = engine.decide_features(matrix[row : row + 1])
            if decision.decided_by is DecidedBy.MODEL:
                rows.append(row)
                rejected.append(decision.decision is Outcome.REJECTED)
            if len(rows) == MOST_NOTICES:
                break
        chosen = np.array(rows, dtype=np.intp)
        baseline = np.array(engine.model.reason_baseline)
        return cls(
            chosen,
            matrix[chosen],
            margins[chosen],
            contributions[chosen],
            np.array(rejected, dtype=bool),
            reasons_against(contributions[chosen], baseline),
        )

    def __len__(self) -> int:
        return len(self.rows)


def strongest(contributions: Array, baseline: Array) -> Reasons:
    """The features that hold one applicant back most against a baseline, at most four, worst first."""
    shortfall = contributions - baseline
    against = [int(p) for p in np.argsort(shortfall, kind="stable") if shortfall[p] < 0]
    own = [position for position in against if contributions[position] < 0]
    return tuple((own or against)[:MAX_REASONS])


def reasons_against(contributions: Array, baseline: Array) -> tuple[Reasons, ...]:
    """The reasons of every row of a (rows, features) matrix of contributions."""
    return tuple(strongest(row, baseline) for row in contributions)


def overlaps(reasons: Sequence[Reasons], others: Sequence[Reasons]) -> Array:
    """The Jaccard index of each pair of reasons: those in both over those in either, 1 where there are none."""
    return np.array([_jaccard(set(one), set(other)) for one, other in zip(reasons, others, strict=True)])


def _jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def mean_interval(values: Array) -> Interval:
    """The normal 95 % interval of a mean of at least two values in [-1, 1]."""
    low, high = intervals.mean_interval(values)
    return max(-1.0, low), min(1.0, high)
