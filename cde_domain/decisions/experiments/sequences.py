"""
Confidence sequences: intervals that hold at all times together, so that whoever looks every day errs no more often.

Evidence against a mean p of outcomes in [0, 1] is Robbins' mixture, the product of likelihood ratios averaged over
Jeffreys' prior Beta(1/2, 1/2). For outcomes of 0 and 1 it is a martingale if p is true, and for all in [0, 1] a
supermartingale, since (q/p)^y ((1-q)/(1-p))^(1-y) is convex in y. By Ville's inequality it ever exceeds 1/alpha with
probability alpha at most. Robbins (1970), Ann. Math. Statist. 41(5); Howard, Ramdas, McAuliffe and Sekhon (2021),
Ann. Statist. 49(2), the beta-binomial mixture; Waudby-Smith and Ramdas (2024), JRSS B 86(1), for bounded outcomes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cde_domain.intervals import Interval

PRIOR = 0.5
_HALVINGS = 32
_CUTS = 20  # the place need not be exact: it only has to lie inside
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Arm:
    """Outcomes in [0, 1] of one variant: how many, and their sum."""

    rows: int
    total: float

    @property
    def mean(self) -> float | None:
        """The mean; None of nothing."""
        return self.total / self.rows if self.rows else None


@dataclass(frozen=True)
class Stratum:
    """Both variants while the same share of customers went to the challenger."""

    challenger: Arm
    champion: Arm

    @property
    def compares(self) -> bool:
        """Whether there is something to compare."""
        return self.challenger.rows > 0 and self.champion.rows > 0


def log_evidence(arm: Arm, mean: float) -> float:
    """The logarithm of the evidence against a mean; it is above log(1/alpha) once at most with probability alpha."""
    if not arm.rows:
        return 0.0
    good, bad = arm.total, arm.rows - arm.total
    return _regret(arm) - _times_log(good, mean) - _times_log(bad, 1 - mean)


def mean_sequence(arm: Arm, alpha: float) -> Interval:
    """The interval of a mean that holds at all times together with probability 1 - alpha."""
    if not arm.rows:
        return 0.0, 1.0
    limit, middle = -math.log(alpha), arm.total / arm.rows

    def beyond(mean: float) -> bool:
        return log_evidence(arm, mean) >= limit

    return _edge(beyond, middle, 0.0), _edge(beyond, middle, 1.0)


def difference_sequence(strata: Sequence[Stratum], alpha: float) -> Interval | None:
    """
    The interval of challenger minus champion that holds at all times together with probability 1 - alpha.

    The difference is taken to be the same in all strata and the means are free in each, so that a population that
    changes while the challenger's share grows is not mistaken for a difference. Where no one difference fits, the
    interval covers that of every stratum. None without a stratum in which both variants decided.
    """
    strata = [stratum for stratum in strata if stratum.compares]
    if not strata:
        return None
    limit = -math.log(alpha)
    estimates = [_difference(stratum) for stratum in strata]
    middle = _lowest(lambda delta: log_evidence_of_difference(strata, delta), min(estimates), max(estimates))

    def beyond(delta: float) -> bool:
        return log_evidence_of_difference(strata, delta) >= limit

    if beyond(middle):
        alone = [difference_sequence([stratum], alpha / len(strata)) for stratum in strata]
        return min(one[0] for one in alone if one), max(one[1] for one in alone if one)
    return _edge(beyond, middle, -1.0), _edge(beyond, middle, 1.0)


def log_evidence_of_difference(strata: Sequence[Stratum], difference: float) -> float:
    """The logarithm of the evidence against a difference, whatever the means are: the least over all of them."""
    return sum(_least_evidence(stratum, difference) for stratum in strata if stratum.compares)


def any_time_p_value(strata: Sequence[Stratum]) -> float | None:
    """The p-value of no difference, valid at whatever time one stops; None where nothing can be compared."""
    if not any(stratum.compares for stratum in strata):
        return None
    return min(1.0, math.exp(-log_evidence_of_difference(strata, 0.0)))


def pooled_difference(strata: Sequence[Stratum]) -> float | None:
    """Challenger minus champion, the strata weighted by the precision that their numbers give."""
    strata = [stratum for stratum in strata if stratum.compares]
    if not strata:
        return None
    weights = [1 / (1 / stratum.challenger.rows + 1 / stratum.champion.rows) for stratum in strata]
    return sum(w * _difference(s) for w, s in zip(weights, strata, strict=True)) / sum(weights)


def _difference(stratum: Stratum) -> float:
    return stratum.challenger.total / stratum.challenger.rows - stratum.champion.total / stratum.champion.rows


def _least_evidence(stratum: Stratum, difference: float) -> float:
    low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
    if high <= low:
        return math.inf if abs(difference) > 1 else _evidence_at(stratum, low, difference)
    first, second = stratum.challenger, stratum.champion

    def slope(mean: float) -> float:  # of the evidence, which is convex in the champion's mean
        other = mean + difference
        return (
            _ratio(first.rows - first.total, 1 - other)
            - _ratio(first.total, other)
            + _ratio(second.rows - second.total, 1 - mean)
            - _ratio(second.total, mean)
        )

    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return _evidence_at(stratum, (low + high) / 2, difference)


def _evidence_at(stratum: Stratum, mean: float, difference: float) -> float:
    other = min(1.0, max(0.0, mean + difference))
    return log_evidence(stratum.challenger, other) + log_evidence(stratum.champion, mean)


def _regret(arm: Arm) -> float:
    good, bad = arm.total + PRIOR, arm.rows - arm.total + PRIOR
    return math.lgamma(good) + math.lgamma(bad) - math.lgamma(good + bad) - math.log(math.pi)


def _times_log(count: float, share: float) -> float:
    if count <= 0:
        return 0.0
    return count * math.log(share) if share > 0 else -math.inf


def _ratio(count: float, share: float) -> float:
    if count <= 0:
        return 0.0
    return count / share if share > 0 else math.inf


def _edge(beyond: Callable[[float], bool], inside: float, outside: float) -> float:
    """Where an interval around `inside` ends towards `outside`, rounded away from the middle."""
    if not beyond(outside):
        return outside
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
    return outside


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(_CUTS):
        first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, second) if function(first) < function(second) else (first, high)
    return (low + high) / 2
