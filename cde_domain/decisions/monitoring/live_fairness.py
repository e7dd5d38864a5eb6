"""Adverse impact of the decisions that were answered, by protected group, where the portfolio collects groups."""

from dataclasses import replace
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.decisions.monitoring.raised import Raised
from cde_domain.decisions.policy import Outcome
from cde_domain.governance.fairness import (
    MIN_REPORTED,
    AttributeResult,
    GroupResult,
    Verdict,
    adverse_impact,
    compare_groups,
    members_of,
)
from cde_domain.intervals import ratio_below, wilson
from cde_domain.loan_book import PROTECTED_PREFIX
from cde_domain.portfolio import Portfolio

FAIRNESS = "adverse_impact_"  # what alarms about groups begin with


def live_fairness(
    portfolio: Portfolio, decisions: pd.DataFrame, *, min_ratio: float, false_alarm_rate: float
) -> list[AttributeResult]:
    """
    Approval by group of each protected attribute that was collected, each group against those that are approved more.

    `decisions` are answered decisions with `protected.<name>`; who did not say belongs to no group. They are looked at
    every day, so a group fails only where its ratio lies below `min_ratio` by more than chance: if every ratio is
    `min_ratio` or more, any group of the gating attributes fails with the probability `false_alarm_rate` at most
    (one-sided score tests, Bonferroni over the pairs of groups; twice that if `min_ratio` is 1). Groups under 30 rows
    are not compared. A ratio below `min_ratio` that chance explains is insufficient data.
    """
    outcome = decisions["decision"].to_numpy(dtype=object).astype(str)
    approved, reviewed = outcome == Outcome.APPROVED.value, outcome == Outcome.MANUAL_REVIEW.value
    collected = [
        (one, decisions[PROTECTED_PREFIX + one.name].reset_index(drop=True))
        for one in portfolio.protected
        if PROTECTED_PREFIX + one.name in decisions and decisions[PROTECTED_PREFIX + one.name].notna().any()
    ]
    compared = [_compared(groups) for one, groups in collected if one.use == "gate"]
    level = false_alarm_rate / max(1, sum(comb(len(members), 2) for members in compared))
    results = []
    for one, groups in collected:
        result = adverse_impact(
            groups, approved, reviewed, attribute=one.name, use=one.use, why=one.why, min_ratio=min_ratio
        )
        members = _compared(groups)
        judged = [_judged(group, members, approved, min_ratio, level) for group in result.groups]
        results.append(replace(result, groups=tuple(judged)))
    return results


def _compared(groups: pd.Series) -> dict[str, NDArray[np.bool_]]:
    return {group: member for group, member in members_of(groups).items() if member.sum() >= MIN_REPORTED}


def _judged(
    result: GroupResult,
    members: dict[str, NDArray[np.bool_]],
    approved: NDArray[np.bool_],
    min_ratio: float,
    level: float,
) -> GroupResult:
    """The result of a group with the verdict that its furthest comparison below the line deserves."""
    if result.group not in members:
        return result
    counts = {group: (int(approved[member].sum()), int(member.sum())) for group, member in members.items()}
    yes, rows = counts[result.group]
    chances = {
        other: ratio_below(yes, rows, all_yes, all_rows, line=min_ratio)
        for other, (all_yes, all_rows) in counts.items()
        if all_yes * rows > yes * all_rows
    }
    other = min(chances, key=lambda one: chances[one], default=None)
    if other is not None and chances[other] < level:
        against = compare_groups(result, other, members, approved, min_ratio)
        return replace(against, verdict=Verdict.FAIL)
    return replace(result, verdict=Verdict.INSUFFICIENT_DATA) if result.verdict is Verdict.FAIL else result


def fairness_alarms(results: list[AttributeResult], min_ratio: float) -> list[Raised]:
    """An alarm for each group of a gating attribute that fails; no training mends it by itself."""
    return [
        Raised(
            FAIRNESS + result.attribute,
            f"{result.attribute} {group.group}: approved {group.impact_ratio:.2f} times as often as "
            f"{group.compared_with} (least: {min_ratio:g}, {group.rows} applicants)",
            retrains=False,
        )
        for result in results
        if result.use == "gate"
        for group in result.groups
        if group.verdict is Verdict.FAIL and group.impact_ratio is not None
    ]


def group_rows(results: list[AttributeResult]) -> list[dict[str, Any]]:
    """Approval rates with their intervals and impact ratios, a row a group."""
    rows = []
    for result in results:
        for group in result.as_json()["groups"]:
            rate, count = group["approval_rate"], group["rows"]
            interval = None if rate is None else list(wilson(round(rate * count), count))
            rows.append({**group, "use": result.use, "approval_interval": interval})
    return rows


def unknown_shares(results: list[AttributeResult], rows: int) -> dict[str, float]:
    """The share of applicants who did not say, by attribute."""
    return {result.attribute: float(np.round(result.unknown_rows / max(1, rows), 4)) for result in results}
