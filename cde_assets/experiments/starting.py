"""A new challenger comes to its first customers, through the gate that a promotion passes."""

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import dagster as dg

from cde_assets.experiments.barred import barred, tried
from cde_assets.experiments.participant import ParticipantError, participant_of
from cde_assets.experiments.truth import running
from cde_assets.metadata import OWNERS
from cde_assets.release import GROUP, refuse
from cde_checks.gate import RECOMPARE, Case, examine
from cde_checks.judgement import EVIDENCE, REPORTS
from cde_checks.refusal import Refusal
from cde_domain.decisions.experiments.measures import approval_plan
from cde_domain.decisions.monitoring.recorded import read_decisions
from cde_domain.portfolio import Portfolio
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.experiments import ExperimentEntry, ExperimentError
from cde_serving.ledger import conflict
from cde_serving.releases import ReleaseStore

LOOKED_BACK = timedelta(days=30)
ENOUGH_DECISIONS = 100


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"json"}, deps=[*REPORTS, EVIDENCE])
def challenger_experiment(
    context: dg.AssetExecutionContext, portfolio: PortfolioResource, releases: ReleasesResource
) -> dg.MaterializeResult:
    """
    The latest challenger in an experiment: it decides for the first share of the portfolio's ramp.

    Refuses whatever a promotion would refuse, as `cde experiment start` does. Starts nothing where no champion decides,
    while an experiment runs, where this very challenger was in one before, or where a guardrail stopped its policy in
    one: what was stopped is not tried again without a person.
    """
    store = releases.store()
    if why := idle(store, releases):
        return dg.MaterializeResult(metadata={"started": False, "why": why})
    case = examine(context.instance, portfolio, releases)
    if case.refusals or case.pack is None or case.bundle is None:
        raise refuse(case.refusals, "no experiment was started")
    lending = portfolio.load()
    if why := tried(store, case.bundle) or barred(store, lending):
        return dg.MaterializeResult(metadata={"started": False, "why": why, "challenger": case.bundle})
    entry = start(store, case, portfolio, releases, by=f"dagster:{context.run_id}")
    return dg.MaterializeResult(
        metadata={
            "started": True,
            "experiment": entry.experiment,
            "challenger": case.bundle,
            "weight": entry.weight,
            "entry": entry.sequence,
            **planned(lending, portfolio, case, entry.weight),
        }
    )


def idle(store: ReleaseStore, releases: ReleasesResource) -> str | None:
    """Why no experiment can start whatever the challenger is; None if one can."""
    if store.ledger.current() is None:
        return "no champion decides yet: the first challenger is promoted by champion_model"
    current = store.experiments.current()
    if current is not None:
        return f"{running(releases) or current.experiment} runs, and one runs at a time"
    return None


def start(
    store: ReleaseStore, case: Case, portfolio: PortfolioResource, releases: ReleasesResource, *, by: str
) -> ExperimentEntry:
    """
    Sign the start with the first weight of the ramp.

    Raises:
        dagster.Failure: something was promoted or started since the gate was asked, and nothing was signed.
    """
    assert case.pack is not None
    stale = conflict(store.ledger.current(), case.compared_with)
    if stale:
        raise refuse([Refusal("ledger", stale, RECOMPARE)], "no experiment was started")
    try:
        challenger = participant_of(case, case.pack, portfolio, store)
        return store.experiments.start(
            f"{releases.now():%Y-%m-%d}-{challenger.bundle[:8]}",
            portfolio=releases.portfolio,
            challenger=challenger,
            weight=portfolio.load().experiment.ramp[0],
            by=by,
            key=releases.signer(),
            compared_with=case.compared_with,
        )
    except (ParticipantError, ExperimentError) as error:
        remedy = "Materialise challenger_experiment again once no experiment runs"
        raise refuse([Refusal("experiment", str(error), remedy)], "no experiment was started") from error


def planned(lending: Portfolio, portfolio: PortfolioResource, case: Case, weight: float) -> dict[str, Any]:
    """How many customers and days the first step needs, by what the champion approves."""
    rate, source, per_day = approval_rate(portfolio, case)
    plan = approval_plan(rate, weight, lending.experiment)
    days = plan.to_detect / per_day if per_day else None
    return {
        "approval_rate": rate,
        "approval_rate_of": source,
        **{f"plan/{name}": value for name, value in asdict(plan).items() if value is not None},
        **({"plan/days": days} if days is not None else {}),
    }


def approval_rate(portfolio: PortfolioResource, case: Case) -> tuple[float, str, float | None]:
    """The champion's approval rate and its source, and decisions a day: of the last month, or else of the hold-out."""
    today = portfolio.now().date()
    recent = read_decisions(portfolio.home, today - LOOKED_BACK, today)
    recent = recent[recent["variant"] == "champion"]
    if len(recent) >= ENOUGH_DECISIONS:
        days = recent["applied_at"].dt.date.nunique()
        return float((recent["decision"] == "APPROVED").mean()), "decisions of 30 days", len(recent) / days
    assert case.pack is not None
    return float(case.pack.report("reports/evaluation.json")["decisions"]["approval_rate"]), "hold-out", None
