"""All that an experiment says at one moment, from its recorded decisions and mature outcomes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from cde_domain.decisions.experiments.assignment import Assignment, examine_assignment
from cde_domain.decisions.experiments.cohort import (
    Terms,
    automatically_decided,
    drawn,
    first_decisions,
    of_experiment,
)
from cde_domain.decisions.experiments.level import ApprovalLevel, approval_level
from cde_domain.decisions.experiments.measures import GUARDRAILS, Comparison, approval_plan, compare, outcomes_of
from cde_domain.decisions.experiments.power import PowerPlan
from cde_domain.decisions.experiments.service import Counters, ServiceShare, service_shares
from cde_domain.decisions.experiments.shadows import ShadowComparison, compare_shadows
from cde_domain.decisions.experiments.slices import GroupRatio, Slice, group_ratios, parts_of, slices_of
from cde_domain.decisions.experiments.verdict import Findings, Judgement, judge
from cde_domain.portfolio import Portfolio


@dataclass(frozen=True)
class StepRow:
    """One weight of an experiment: the customers whose first decision fell to it, and how many were approved."""

    since: datetime
    weight: float
    challenger_rows: int
    champion_rows: int
    challenger_approved: float | None
    champion_approved: float | None


@dataclass(frozen=True)
class ExperimentReport:
    """
    What is known of an experiment.

    `judgement` is None where only shadows take part. `plan` is of the approval rate at the first weight, by what the
    champion approved during the experiment; None before it decided. `service` is empty where the service was not asked.
    """

    experiment: str
    entry: int
    started: datetime
    weight: float
    champion: str
    challenger: str | None
    decisions: int
    customers: int
    challenger_customers: int
    steps: tuple[StepRow, ...]
    assignment: Assignment
    comparisons: tuple[Comparison, ...]
    level: ApprovalLevel | None
    groups: tuple[GroupRatio, ...]
    service: tuple[ServiceShare, ...]
    slices: tuple[Slice, ...]
    shadows: tuple[ShadowComparison, ...]
    judgement: Judgement | None
    plan: PowerPlan | None

    def as_json(self) -> dict[str, Any]:
        """The report as JSON; times in ISO 8601."""
        value = asdict(self)
        value["assignment"] |= {"as_declared": self.assignment.as_declared, "trusted": self.assignment.trusted}
        for row, one in zip(value["comparisons"], self.comparisons, strict=True):
            row["breached"] = one.breached
        plain: dict[str, Any] = json.loads(json.dumps(value, default=_plain, allow_nan=False))
        return plain


def experiment_report_of(
    decisions: pd.DataFrame,
    labelled: pd.DataFrame,
    terms: Terms,
    lending: Portfolio,
    *,
    counters: Counters | None = None,
    now: datetime,
) -> ExperimentReport:
    """
    The report on the experiment of these terms.

    `decisions` are all that were recorded since it started, shadows among them, and `labelled` those with a mature
    outcome. `counters` are what the service counted while the experiment ran, as far as that is known.
    """
    rules, features = lending.experiment, lending.features
    decided = of_experiment(decisions, terms)
    automatic = automatically_decided(decided)
    first = first_decisions(automatic, terms)
    both = drawn(first, terms)
    assignment = examine_assignment(decided, first, terms)
    comparisons = tuple(compare(first, outcomes_of(first, labelled), terms, rules))
    share = rules.alpha / GUARDRAILS
    groups = tuple(group_ratios(first, lending.protected, share))
    service = tuple(service_shares(counters, rules, share))
    in_step = first["by_challenger"].to_numpy(dtype=bool) & (first["step"] == len(terms.steps) - 1).to_numpy()
    level = approval_level(first, lending.alarms, share)
    found = Findings(assignment, comparisons, level, groups, service, int(in_step.sum()))
    return ExperimentReport(
        experiment=terms.experiment,
        entry=terms.entry,
        started=terms.started,
        weight=terms.weight,
        champion=terms.champion,
        challenger=terms.challenger,
        decisions=len(decided),
        customers=assignment.customers,
        challenger_customers=int(first["by_challenger"].sum()),
        steps=tuple(_steps(first, terms)),
        assignment=assignment,
        comparisons=comparisons,
        level=level,
        groups=groups,
        service=service,
        slices=tuple(slices_of(both, parts_of(both, features, rules.segments))),
        shadows=tuple(
            compare_shadows(decisions, automatic, parts_of(automatic, features, rules.segments), terms.shadows)
            if terms.shadows
            else ()
        ),
        judgement=judge(found, terms, rules, min_ratio=lending.thresholds.min_adverse_impact_ratio, now=now)
        if terms.challenger
        else None,
        plan=_plan(comparisons, terms, lending),
    )


def _steps(first: pd.DataFrame, terms: Terms) -> Sequence[StepRow]:
    approved = (first["decision"] == "APPROVED").to_numpy()
    challenger, number = first["by_challenger"].to_numpy(dtype=bool), first["step"].to_numpy()
    rows = []
    for place, step in enumerate(terms.steps):
        sides = [(number == place) & side for side in (challenger, ~challenger)]
        rates = [float(np.mean(approved[side])) if side.any() else None for side in sides]
        rows.append(StepRow(step.since, step.weight, *(int(side.sum()) for side in sides), *rates))
    return rows


def _plan(comparisons: Sequence[Comparison], terms: Terms, lending: Portfolio) -> PowerPlan | None:
    share = terms.steps[0].weight
    rate = next((one.champion for one in comparisons if one.name == "approval"), None)
    if rate is None or not 0 < share < 1:
        return None
    return approval_plan(rate, share, lending.experiment)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
