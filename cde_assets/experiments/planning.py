"""How many customers and days an experiment needs, before it starts."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from cde_domain.decisions.experiments.measures import approval_plan
from cde_domain.decisions.monitoring.recorded import read_decisions
from cde_resources.portfolio import PortfolioResource
from cde_serving.evidence import Pack

LOOKED_BACK = timedelta(days=30)
ENOUGH_DECISIONS = 100


def planned(portfolio: PortfolioResource, pack: Pack, weight: float) -> dict[str, Any]:
    """
    How many customers and days a step needs, by what the champion approves; `pack` is the challenger's evidence.

    Raises:
        ValueError: nobody is drawn at a weight of 0 or 1.
    """
    rate, source, per_day = approval_rate(portfolio, pack)
    plan = approval_plan(rate, weight, portfolio.load().experiment)
    days = plan.to_detect / per_day if per_day else None
    return {
        "approval_rate": rate,
        "approval_rate_of": source,
        **{f"plan/{name}": value for name, value in asdict(plan).items() if value is not None},
        **({"plan/days": days} if days is not None else {}),
    }


def told(plan: Mapping[str, Any]) -> str:
    """A plan in a sentence."""
    at = f"at {plan['approval_rate']:.1%} approved ({plan['approval_rate_of']})"
    found = (
        f"{plan['plan/to_detect']:,} customers are needed to find a change of {plan['plan/change']:.1%} with power "
        f"{plan['plan/power']:.0%}"
    )
    days = f", {plan['plan/days']:.1f} days of them" if "plan/days" in plan else ""
    cleared = f"; {plan['plan/to_clear']:,} to rule it out however often one looks" if "plan/to_clear" in plan else ""
    return f"Planned {at}: {found}{days}{cleared}."


def approval_rate(portfolio: PortfolioResource, pack: Pack) -> tuple[float, str, float | None]:
    """The champion's approval rate and its source, and decisions a day: of the last month, or else of the hold-out."""
    today = portfolio.now().date()
    recent = read_decisions(portfolio.home, today - LOOKED_BACK, today)
    recent = recent[recent["variant"] == "champion"]
    if len(recent) >= ENOUGH_DECISIONS:
        days = recent["applied_at"].dt.date.nunique()
        return float((recent["decision"] == "APPROVED").mean()), "decisions of 30 days", len(recent) / days
    return float(pack.report("reports/evaluation.json")["decisions"]["approval_rate"]), "hold-out", None
