"""Adverse impact of the decisions that were answered, by protected group, where the portfolio collects groups."""

from typing import Any

import numpy as np
import pandas as pd

from cde_domain.decisions.monitoring.raised import Raised
from cde_domain.decisions.policy import Outcome
from cde_domain.governance.fairness import AttributeResult, Verdict, adverse_impact
from cde_domain.intervals import wilson
from cde_domain.loan_book import PROTECTED_PREFIX
from cde_domain.portfolio import Portfolio

FAIRNESS = "adverse_impact_"  # what alarms about groups begin with


def live_fairness(portfolio: Portfolio, decisions: pd.DataFrame, *, min_ratio: float) -> list[AttributeResult]:
    """
    Approval by group of each protected attribute that was collected, against the group that is approved most.

    `decisions` are answered decisions with `protected.<name>`; the verdicts are those of the fairness report. Who did
    not say belongs to no group.
    """
    outcome = decisions["decision"].to_numpy(dtype=object).astype(str)
    approved, reviewed = outcome == Outcome.APPROVED.value, outcome == Outcome.MANUAL_REVIEW.value
    collected = [one for one in portfolio.protected if PROTECTED_PREFIX + one.name in decisions]
    return [
        adverse_impact(
            decisions[PROTECTED_PREFIX + one.name].reset_index(drop=True),
            approved,
            reviewed,
            attribute=one.name,
            use=one.use,
            why=one.why,
            min_ratio=min_ratio,
        )
        for one in collected
        if decisions[PROTECTED_PREFIX + one.name].notna().any()
    ]


def fairness_alarms(results: list[AttributeResult], min_ratio: float) -> list[Raised]:
    """An alarm for each group of a gating attribute that is approved too rarely; no training mends it by itself."""
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
