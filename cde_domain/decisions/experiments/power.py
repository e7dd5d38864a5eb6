"""How many customers an experiment needs, told before it starts."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from cde_domain.decisions.experiments.sequences import Arm, Stratum, difference_sequence

_MOST = 10**8


@dataclass(frozen=True)
class PowerPlan:
    """
    What was planned: customers of both variants, at a rate of the champion and a share for the challenger.

    `to_detect` is for a test that looks once and finds a change of `change` with probability `power`; `to_clear` until
    a challenger that changes nothing is shown to change less than `change`, by intervals that hold at all times.
    """

    rate: float
    change: float
    share: float
    alpha: float
    power: float
    to_detect: int
    to_clear: int | None


def power_plan(rate: float, change: float, *, share: float, alpha: float, power: float) -> PowerPlan:
    """The plan for a champion's rate, e.g. of approvals, of which a change by `change` up or down would matter."""
    return PowerPlan(
        rate,
        change,
        share,
        alpha,
        power,
        to_detect=customers_to_detect(rate, change, share=share, alpha=alpha, power=power),
        to_clear=customers_to_clear(rate, change, share=share, alpha=alpha),
    )


def customers_to_detect(rate: float, change: float, *, share: float, alpha: float, power: float) -> int:
    """
    The customers of both variants with which a change of a rate is found with probability `power`.

    Two proportions of unequal numbers, the normal test at level `alpha`, two-sided; the direction that needs more.
    Fleiss, Levin and Paik (2003), Statistical Methods for Rates and Proportions, section 4.
    """
    others = [other for other in (rate - change, rate + change) if 0 <= other <= 1]
    if not 0 < share < 1 or not others:
        raise ValueError("a share lies between 0 and 1, and so does the rate that is to be told apart")
    return max(_fleiss(other, rate, share, alpha, power) for other in others)


def _fleiss(challenger: float, champion: float, share: float, alpha: float, power: float) -> int:
    critical, beyond = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    pooled = share * challenger + (1 - share) * champion
    equal = math.sqrt(pooled * (1 - pooled) * (1 / share + 1 / (1 - share)))
    apart = math.sqrt(challenger * (1 - challenger) / share + champion * (1 - champion) / (1 - share))
    return math.ceil(((critical * equal + beyond * apart) / (challenger - champion)) ** 2)


def customers_to_clear(rate: float, change: float, *, share: float, alpha: float) -> int | None:
    """
    The customers of both variants after which the confidence sequence of an equal challenger lies within the change.

    Expected numbers are put in for random ones. None where a hundred million do not suffice.
    """

    def clears(customers: int) -> bool:
        first = min(max(1, round(customers * share)), customers - 1)
        arms = (Arm(rows, rate * rows) for rows in (first, customers - first))
        interval = difference_sequence([Stratum(*arms)], alpha)
        return interval is not None and -change < interval[0] and interval[1] < change

    enough = 8
    while not clears(enough):
        enough *= 2
        if enough > _MOST:
            return None
    few = enough // 2
    while enough - few > max(1, few // 100):
        middle = (few + enough) // 2
        few, enough = (few, middle) if clears(middle) else (middle, enough)
    return enough
