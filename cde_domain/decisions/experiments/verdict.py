"""What follows from an experiment so far: more customers, waiting, the end, or a promotion."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cde_domain.decisions.experiments.assignment import Assignment
from cde_domain.decisions.experiments.cohort import Terms
from cde_domain.decisions.experiments.level import ApprovalLevel
from cde_domain.decisions.experiments.measures import Comparison
from cde_domain.decisions.experiments.service import ServiceShare
from cde_domain.decisions.experiments.slices import GroupRatio
from cde_domain.portfolio.experiments import ExperimentRules

ENDINGS = ("nothing was shown in", "nothing was promoted in")  # how the reason begins where `max_days` are over


class Verdict(StrEnum):
    """What should be done."""

    RAMP = "ramp"
    HOLD = "hold"
    STOP = "stop"
    PROMOTE = "promote"


@dataclass(frozen=True)
class Breach:
    """A guardrail that was breached: its name, and a sentence without personal values."""

    what: str
    said: str


@dataclass(frozen=True)
class Findings:
    """All that is known of an experiment at one moment."""

    assignment: Assignment
    comparisons: Sequence[Comparison]
    level: ApprovalLevel | None
    groups: Sequence[GroupRatio]
    service: Sequence[ServiceShare]
    decided_in_step: int


@dataclass(frozen=True)
class Judgement:
    """The verdict, why, and the share that follows where it is `ramp`."""

    verdict: Verdict
    reasons: tuple[str, ...]
    next_weight: float | None
    breaches: tuple[Breach, ...]


def judge(found: Findings, terms: Terms, rules: ExperimentRules, *, min_ratio: float, now: datetime) -> Judgement:
    """
    The verdict on an experiment with a challenger.

    A breached guardrail stops it. Otherwise it waits until the assignment can be believed and the step has lasted,
    and until every guardrail can be ruled out for the share of customers that comes next: before a promotion, beside
    what the champion decided earlier too. After `max_days` it ends, whatever it has shown.
    """
    breaches = tuple(breaches_of(found, min_ratio))
    if breaches:
        return Judgement(Verdict.STOP, tuple(breach.said for breach in breaches), None, breaches)
    following = rules.after(terms.weight)
    waiting = [*_not_ready(found, terms, rules, now), *_not_cleared(found, rules, following or 1.0, following is None)]
    if now - terms.started > timedelta(days=rules.max_days):
        # Also one that was won: what cannot be promoted would decide for everybody for ever.
        over = f"{ENDINGS[0] if waiting else ENDINGS[1]} {rules.max_days:g} days"
        return Judgement(Verdict.STOP, (over, *waiting), None, ())
    if waiting:
        return Judgement(Verdict.HOLD, tuple(waiting), None, ())
    shown = f"no guardrail is breached, and none would be with {following or 1.0:.0%} of the customers"
    if following is None:
        return Judgement(Verdict.PROMOTE, (shown,), None, ())
    return Judgement(Verdict.RAMP, (shown,), following, ())


def breaches_of(found: Findings, min_ratio: float) -> list[Breach]:
    """Every guardrail that is breached."""
    breaches = [
        Breach(one.name, f"{one.title}: {_difference(one)}, beyond the {one.bound:.3g} that is tolerated")
        for one in found.comparisons
        if one.breached
    ]
    if found.level is not None and found.level.breached:
        breaches.append(Breach("approval_rate", str(found.level)))
    breaches += [
        Breach(
            "fairness",
            f"{one.attribute}={one.group} is approved {one.ratio:.2f} times as often as {one.reference} "
            f"(at most {one.highest:.2f}), below {min_ratio:.2f}",
        )
        for one in found.groups
        if one.breached(min_ratio)
    ]
    breaches += [
        Breach(one.name, f"{one.title}: {one.share:.1%} of {one.rows}, beyond the {one.bound:.1%} that is tolerated")
        for one in found.service
        if one.breached
    ]
    return breaches


def _not_ready(found: Findings, terms: Terms, rules: ExperimentRules, now: datetime) -> list[str]:
    waiting = []
    if not found.assignment.trusted:
        waiting.append("customers are not assigned as declared, so that nothing can be compared")
    if found.decided_in_step < rules.min_decisions:
        waiting.append(
            f"{found.decided_in_step} customers of the challenger at this weight, of {rules.min_decisions} needed"
        )
    lasted = (now - terms.steps[-1].since) / timedelta(days=1)
    if lasted < rules.min_days:
        waiting.append(f"{max(lasted, 0.0):.1f} days at this weight, of {rules.min_days:g} needed")
    return waiting


def _not_cleared(found: Findings, rules: ExperimentRules, exposure: float, promotes: bool) -> list[str]:
    waiting = []
    for one in found.comparisons:
        needed = 0
        if one.name.startswith("bad_rate"):
            # The first mature outcomes are few for months: they stop a challenger, and hold it up only where asked for.
            if one.historical or not (promotes and rules.min_outcomes):
                continue
            needed = rules.min_outcomes
        if one.challenger_rows < needed:
            waiting.append(f"{one.challenger_rows} mature outcomes of the challenger's loans, of {needed} needed")
        elif one.interval is None and one.name.startswith("approval"):
            waiting.append(f"no customers {'to compare with' if one.historical else 'were drawn'} yet")
        elif one.interval is not None and not one.cleared(exposure):
            waiting.append(
                f"{one.title}: {_difference(one)}, so that more than {one.bound:.3g} cannot be ruled out for "
                f"{exposure:.0%} of the customers"
            )
    if exposure == 1 and found.level is not None and not found.level.cleared:
        waiting.append(f"{found.level}, so that a rate out of it cannot be ruled out")
    return waiting


def _difference(one: Comparison) -> str:
    assert one.difference is not None
    assert one.interval is not None
    return f"{one.difference:+.3f} ({one.interval[0]:+.3f} to {one.interval[1]:+.3f})"
