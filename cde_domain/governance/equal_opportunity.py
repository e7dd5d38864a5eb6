"""Equal opportunity and equalized odds: are those who repay approved alike, and those who do not?"""

import json
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.governance.fairness import MIN_REPORTED, MIN_VERDICT, members_of
from cde_domain.intervals import LEVEL, Interval, newcombe, wilson

Kind = Literal["repaid", "not repaid"]


@dataclass(frozen=True)
class ApprovalRate:
    """
    Approval among the members of a group who repaid, or who did not (their true and false positive rates).

    `rate` and its Wilson interval are None below 30 such members.
    """

    group: str
    among: Kind
    rows: int
    approved: int
    rate: float | None
    interval: Interval | None


@dataclass(frozen=True)
class RateGap:
    """
    The largest difference of approval between two groups, `between` lowest and highest.

    The interval is Newcombe's at a level divided by the number of pairs compared, so that the largest of many
    differences is not taken for one that was looked for. `sufficient` is false while a group is too small to judge.
    """

    difference: float | None
    interval: Interval | None
    among: Kind | None
    between: tuple[str, str] | None
    sufficient: bool


@dataclass(frozen=True)
class OpportunityResult:
    """
    Approval by group given the outcome.

    `equal_opportunity` compares those who repaid, `equalized_odds` is the larger gap of those who repaid and those who
    did not (Hardt et al. 2016).
    """

    rates: tuple[ApprovalRate, ...]
    equal_opportunity: RateGap
    equalized_odds: RateGap

    def as_json(self) -> dict[str, Any]:
        """The result as JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def opportunity(groups: pd.Series, approved: NDArray[np.bool_], repaid: NDArray[np.float64]) -> OpportunityResult:
    """Approval of those who repaid and of those who did not, by group; groups under 30 of either are not compared."""
    members = members_of(groups)
    rates: dict[Kind, list[ApprovalRate]] = {
        "repaid": [_rate(group, "repaid", member & (repaid == 1), approved) for group, member in members.items()],
        "not repaid": [
            _rate(group, "not repaid", member & (repaid == 0), approved) for group, member in members.items()
        ],
    }
    pairs = sum(_pairs(each) for each in rates.values())
    of_good = _gap(rates["repaid"], _pairs(rates["repaid"]))
    gaps = [gap for each in rates.values() if (gap := _gap(each, pairs)).difference is not None]
    both = max(gaps, key=lambda gap: gap.difference or 0.0, default=of_good)
    sufficient = all(rate.rows >= MIN_VERDICT for each in rates.values() for rate in each)
    odds = RateGap(both.difference, both.interval, both.among, both.between, sufficient and bool(gaps))
    return OpportunityResult((*rates["repaid"], *rates["not repaid"]), of_good, odds)


def _rate(group: str, among: Kind, member: NDArray[np.bool_], approved: NDArray[np.bool_]) -> ApprovalRate:
    rows, yes = int(member.sum()), int(approved[member].sum())
    if rows < MIN_REPORTED:
        return ApprovalRate(group, among, rows, yes, None, None)
    return ApprovalRate(group, among, rows, yes, yes / rows, wilson(yes, rows))


def _pairs(rates: list[ApprovalRate]) -> int:
    return len(list(combinations([rate for rate in rates if rate.rate is not None], 2)))


def _gap(rates: list[ApprovalRate], pairs: int) -> RateGap:
    compared = [rate for rate in rates if rate.rate is not None]
    if len(compared) < 2:
        return RateGap(None, None, None, None, sufficient=False)
    lowest = min(compared, key=lambda rate: rate.rate or 0.0)
    highest = max(compared, key=lambda rate: rate.rate or 0.0)
    interval = newcombe(highest.approved, highest.rows, lowest.approved, lowest.rows, level=LEVEL / pairs)
    difference = highest.approved / highest.rows - lowest.approved / lowest.rows
    sufficient = all(rate.rows >= MIN_VERDICT for rate in rates)
    return RateGap(difference, interval, highest.among, (lowest.group, highest.group), sufficient)
