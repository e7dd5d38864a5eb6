"""A new challenger comes to its first customers, through the gate that a promotion passes."""

import dagster as dg

from cde_assets.experiments.barred import barred, tried
from cde_assets.experiments.participant import ParticipantError, participant_of
from cde_assets.experiments.planning import planned
from cde_assets.experiments.truth import running
from cde_assets.metadata import OWNERS
from cde_assets.release import GROUP, refuse
from cde_checks.gate import RECOMPARE, Case, examine
from cde_checks.judgement import EVIDENCE, REPORTS
from cde_checks.refusal import Refusal
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.experiments import ExperimentEntry, ExperimentError
from cde_serving.ledger import conflict
from cde_serving.releases import ReleaseStore


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
            **planned(portfolio, case.pack, entry.weight),
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
