"""Whether those who apply today, their scores and the decisions are still those of the training population."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.monitoring.raised import Raised
from cde_domain.decisions.monitoring.reference import Reference, decision_codes
from cde_domain.intervals import newcombe, wilson
from cde_domain.model.metrics import PsiReference
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio.alarms import Alarms

Array = NDArray[np.float64]

DRAWS = 50_000
RESERVE = 0.5  # of the rate: applicants of some weeks are not quite independent, and limits are estimates themselves
RAREST = 2e-4  # the rarest event that so many draws tell of: ten of them lie beyond


@dataclass(frozen=True)
class Watched:
    """One thing whose distribution is watched: its reference, and its values today (NaN for unknown)."""

    name: str
    of: Literal["feature", "score", "decisions"]
    reference: PsiReference
    values: Array


@dataclass(frozen=True)
class Shift:
    """
    How far one thing has moved from its reference.

    `by_chance` is the population stability index that as many rows of the reference's own population exceed by chance
    with this thing's part of the report's false-alarm rate, `limit` the larger of it and of the least index that
    matters. `unknown` are shares of rows without a value.
    """

    name: str
    of: str
    rows: int
    reference_rows: int
    psi: float
    by_chance: float
    limit: float
    drifted: bool
    unknown: float
    unknown_before: float

    def as_json(self) -> dict[str, Any]:
        """The shift as JSON."""
        return asdict(self)


def watched(
    model: ScoringModel, matrix: Array, reference: Reference | None = None, decisions: NDArray[Any] | None = None
) -> list[Watched]:
    """
    What is watched of applications of shape (rows, features): each feature and, given a reference, score and decision.

    Scores are those that this model gives to all of them. `decisions` are what was answered under this model's policy,
    which need not be to all of them.
    """
    found = [
        Watched(name, "feature", of_one, values)
        for name, of_one, values in zip(model.feature_names, feature_references(model), matrix.T, strict=False)
    ]
    if reference is not None:
        found.append(Watched("score", "score", reference.scores, model.scores(matrix)))
        if decisions is not None and len(decisions):
            found.append(Watched("decision", "decisions", reference.decisions, decision_codes(decisions)))
    return found


def feature_references(model: ScoringModel) -> list[PsiReference]:
    """What the training set of a model looked like, feature by feature; nothing of a model that does not say."""
    rows = int(model.provenance.get("training_rows", 0))
    return [
        PsiReference(tuple(one["edges"]), tuple(one["shares"]), one.get("rows") or rows, one.get("by_value", False))
        for one in model.feature_references
    ]


def shifts(things: Sequence[Watched], alarms: Alarms) -> list[Shift]:
    """
    The shift of each thing that is watched.

    Where nothing has changed, any of them is called drifted with the probability `false_alarm_rate` at most
    (Bonferroni, with half of the rate in reserve): each limit follows from the number of the thing's rows, of the
    reference's rows, and of the things.
    """
    level = RESERVE * alarms.false_alarm_rate / max(1, len(things))
    return [_shift(thing, level, alarms.min_psi) for thing in things]


def _shift(thing: Watched, level: float, least: float) -> Shift:
    reference, rows = thing.reference, len(thing.values)
    psi = reference.psi(thing.values)
    chance = psi_by_chance(reference, rows, level)
    limit = max(least, chance)
    return Shift(
        name=thing.name,
        of=thing.of,
        rows=rows,
        reference_rows=reference.rows,
        psi=psi,
        by_chance=chance,
        limit=limit,
        drifted=psi > limit,
        unknown=float(np.isnan(thing.values).mean()) if rows else 0.0,
        unknown_before=reference.shares[-1],
    )


@lru_cache(maxsize=4096)
def psi_by_chance(reference: PsiReference, rows: int, level: float) -> float:
    """
    The index that `rows` rows of the reference's own population exceed with probability `level` at most.

    Simulated, because the index is only roughly a multiple of chi-squared (Yurdakul 2018, Statistical properties of the
    population stability index), and least so in the tail and with rare values, where the limit lies. What a finite
    reference leaves open about its population is drawn too: shares between order statistics of a continuous feature
    have a Dirichlet distribution, and with half a count in every bin (Jeffreys) it serves tied and rare values. Values
    that a reference by value has not seen are as frequent as those it saw once (Good 1953, The population frequencies
    of species), so that the long tail of a count is no news. Levels below 1 in 5,000 are extrapolated by the ratio of
    chi-squared quantiles.
    """
    from scipy.special import chdtri  # the inverse of the chi-squared tail

    expected = np.array(reference.shares)
    random = np.random.default_rng(0)
    weights = expected * (reference.rows + len(expected) / 2)
    if reference.by_value:
        weights[0] += np.count_nonzero(np.round(weights[1:-1] - 0.5) == 1)
    population = random.dirichlet(weights, DRAWS)
    counts = random.multinomial(rows, population) + 0.5
    actual = counts / counts.sum(axis=1, keepdims=True)
    drawn = ((actual - expected) * np.log(actual / expected)).sum(axis=1)
    told = max(level, RAREST)
    beyond = int(told * (DRAWS + 1))
    freedom = len(expected) - 1
    return float(np.partition(drawn, -beyond)[-beyond] * chdtri(freedom, level) / chdtri(freedom, told))


def drift_alarms(found: Sequence[Shift]) -> list[Raised]:
    """An alarm for each thing that drifted."""
    named = {"feature": "the feature {}", "score": "the score", "decisions": "the mix of decisions"}
    return [
        Raised(
            f"drift_{shift.name}",
            f"{named[shift.of].format(shift.name)} has drifted: over {shift.rows} decisions its stability index is "
            f"{shift.psi:.2f}, the limit {shift.limit:.2f}",
            retrains=shift.of != "decisions",  # a stopped service changes the mix too
        )
        for shift in found
        if shift.drifted
    ]


def approval_alarms(approved: int, rows: int, reference: Reference | None, alarms: Alarms) -> list[Raised]:
    """Alarms about the share of applications that are approved, where it crosses its bounds by more than chance."""
    rate, (low, high) = approved / rows, wilson(approved, rows)
    share = f"{rate:.1%} of {rows} applications were approved ({low:.1%} to {high:.1%})"
    raised = []
    if high < alarms.min_approval_rate:
        raised.append(Raised("approval_rate_low", f"{share}, below {alarms.min_approval_rate:.1%}", retrains=False))
    if low > alarms.max_approval_rate:
        raised.append(Raised("approval_rate_high", f"{share}, above {alarms.max_approval_rate:.1%}", retrains=False))
    most = alarms.max_approval_rate_change
    if reference is not None and most is not None:
        low, high = newcombe(approved, rows, reference.approved, reference.rows)
        if low > most or high < -most:
            before = reference.approved / reference.rows
            said = f"{share}; of the champion's {reference.measured_on.replace('_', ' ')} it was {before:.1%}"
            raised.append(Raised("approval_rate_change", said, retrains=False))
    return raised
