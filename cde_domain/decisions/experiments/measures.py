"""What is compared between the variants, and whether a guardrail is breached or can be ruled out to be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.decisions.experiments.cohort import Terms, arms_of, historical_stratum, strata_of
from cde_domain.decisions.experiments.power import PowerPlan, power_plan
from cde_domain.decisions.experiments.sequences import (
    Stratum,
    any_time_p_value,
    difference_sequence,
    pooled_difference,
)
from cde_domain.intervals import Interval
from cde_domain.portfolio.experiments import ExperimentRules

Array = NDArray[np.float64]
Harm = Literal["rise", "change"]


@dataclass(frozen=True)
class Measure:
    """An outcome in [0, 1] of each customer (NaN: none), the largest tolerable difference, and which way it harms."""

    name: str
    title: str
    bound: Callable[[ExperimentRules], float]
    harm: Harm


MEASURES = (
    Measure("approval", "share approved", lambda rules: rules.max_approval_change, "change"),
    Measure("fallback", "share that ends in a fallback", lambda rules: rules.max_fallback_rise, "rise"),
    Measure("score", "mean score", lambda rules: rules.max_score_shift, "change"),
    Measure(
        "expected_bad_rate",
        "share of approved loans that the scores expect not to be repaid",
        lambda rules: rules.max_expected_bad_rate_rise,
        "rise",
    ),
    Measure("bad_rate", "share of approved loans not repaid", lambda rules: rules.max_bad_rate_rise, "rise"),
)
# These twice (beside customers drawn at the same time, and beside earlier ones), the share approved at all, fairness,
# and the service's errors and latency share alpha.
GUARDRAILS = 2 * len(MEASURES) + 4
AT_FULL_WEIGHT = "_at_full_weight"


@dataclass(frozen=True)
class Comparison:
    """
    One measure of both variants.

    `interval` is a confidence sequence of challenger minus champion at alpha over the number of guardrails, and
    `p_value` is valid at all times; both None where nothing can be compared. `historical` is a comparison of the
    challenger where it decides for everybody with what the champion decided before.
    """

    name: str
    title: str
    harm: Harm
    bound: float
    challenger: float | None
    champion: float | None
    challenger_rows: int
    champion_rows: int
    difference: float | None
    interval: Interval | None
    p_value: float | None
    historical: bool = False

    @property
    def breached(self) -> bool:
        """Whether the difference is beyond its bound in the harmful direction, with the whole interval."""
        if self.interval is None:
            return False
        low, high = self.interval
        return low > self.bound or (self.harm == "change" and high < -self.bound)

    def cleared(self, exposure: float) -> bool:
        """
        Whether harm beyond the bound can be ruled out for all customers together, if so many get the challenger.

        A difference touches a share `exposure` of them, so that few customers need less certainty than all: Xu, Duan
        and Huang (2018), SQR, KDD.
        """
        if self.interval is None:
            return False
        low, high = (end * exposure for end in self.interval)
        return high <= self.bound and (self.harm == "rise" or low >= -self.bound)


def approval_plan(rate: float, share: float, rules: ExperimentRules) -> PowerPlan:
    """The customers that an experiment on approvals needs, at the champion's rate and a share for the challenger."""
    alpha = rules.alpha / GUARDRAILS
    return power_plan(rate, rules.max_approval_change, share=share, alpha=alpha, power=rules.power)


def outcomes_of(first: pd.DataFrame, labelled: pd.DataFrame) -> dict[str, Array]:
    """
    What is compared, of each customer's first decision: arrays of shape (customers,) in [0, 1], NaN where unknown.

    `labelled` are the decisions whose outcomes are mature, with `decision_id` and `repaid`.
    """
    approved = (first["decision"] == "APPROVED").to_numpy()
    score = first["score"].to_numpy(dtype=np.float64)
    repaid = first["decision_id"].map(labelled.set_index("decision_id")["repaid"].astype(np.float64)).to_numpy(float)
    return {
        "approval": approved.astype(np.float64),
        "fallback": (first["decided_by"] == "fallback").to_numpy(dtype=np.float64),
        "score": score,
        "expected_bad_rate": np.where(approved, 1 - score, np.nan),
        "bad_rate": np.where(approved, 1 - repaid, np.nan),
    }


def compare(first: pd.DataFrame, outcomes: dict[str, Array], terms: Terms, rules: ExperimentRules) -> list[Comparison]:
    """
    All measures of the customers' first decisions, where customers were drawn.

    Once the challenger decides for everybody, beside what the champion decided before too.
    """
    alpha = rules.alpha / GUARDRAILS
    drawn = [comparison_of(one, strata_of(first, outcomes[one.name], terms), rules, alpha) for one in MEASURES]
    earlier = [
        _beside_earlier(comparison_of(one, [stratum], rules, alpha))
        for one in MEASURES
        if (stratum := historical_stratum(first, outcomes[one.name], terms)) is not None
    ]
    return drawn + earlier


def comparison_of(measure: Measure, strata: Sequence[Stratum], rules: ExperimentRules, alpha: float) -> Comparison:
    """One measure from the sums of its strata."""
    challenger, champion = arms_of(strata)
    return Comparison(
        measure.name,
        measure.title,
        measure.harm,
        measure.bound(rules),
        challenger.mean,
        champion.mean,
        challenger.rows,
        champion.rows,
        pooled_difference(strata),
        difference_sequence(strata, alpha),
        any_time_p_value(strata),
    )


def _beside_earlier(one: Comparison) -> Comparison:
    title = f"{one.title}, where the challenger decides for everybody beside the champion before"
    return replace(one, name=one.name + AT_FULL_WEIGHT, title=title, historical=True)
