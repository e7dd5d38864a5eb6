"""Carries out what the latest report asks of an experiment: a larger share, its end, or a promotion."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from cde_assets.experiments.truth import PLATFORM, Due, Nothing, due
from cde_checks.judgement import metadata_of
from cde_domain.portfolio import Portfolio
from cde_resources.releases import ReleasesResource
from cde_serving.experiments import ExperimentConflictError, ExperimentEntry
from cde_serving.settings import Settings

MOVE_JOB = "move_experiment"
PROMOTE_JOB = "promote_challenger"
SENSOR = "experiment_ramps"
REPORT = "experiment_report"
PROMOTED = ("champion_model", "scoring_bento")

ACTION_TAG = "cde/experiment_action"
REPORT_TAG = "cde/experiment_report"
REQUESTED_TAG = "cde/requested_at"
ATTEMPTS = 3
SOONEST, LATEST = timedelta(minutes=1), timedelta(hours=1)  # between attempts at an end that failed so often
TICK_SECONDS = 15
CLOCKED_TICK_SECONDS = 5  # months pass in minutes where a file tells the time


def due_now(instance: dg.DagsterInstance, lending: Portfolio, releases: ReleasesResource) -> Due | Nothing:
    """
    What is due, by the signed logs and the latest report that a run made: anybody can tell Dagster of one by hand.

    Raises:
        ExperimentError, LedgerError: a log is damaged; nothing is done then.
    """
    store = releases.store()
    number, report = _latest_report(instance, dg.AssetKey([lending.name, REPORT]))
    action = due(
        store.experiments.entries(), store.ledger.entries(), report, automatic=lending.promotion == "automatic"
    )
    return action if isinstance(action, Nothing) else replace(action, report=number)


def _latest_report(instance: dg.DagsterInstance, key: dg.AssetKey) -> tuple[int, Mapping[str, Any]]:
    """The number of its event, and what it said of itself; 0 and nothing where no run made one."""
    records = instance.fetch_materializations(key, limit=1).records
    if not records or not records[0].run_id:
        return 0, {}
    return records[0].storage_id, metadata_of(instance, key, records[0].storage_id)


def move(action: Due, releases: ReleasesResource, *, by: str) -> ExperimentEntry:
    """
    Sign a larger share or the end, unless the log has moved on meanwhile.

    Raises:
        ExperimentConflictError: it has; what was due is due no longer.
    """
    experiments, key = releases.store().experiments, releases.signer()
    if action.action == "weight":
        return experiments.change_weight(
            action.weight, by=by, key=key, reason=action.reason, expected_sequence=action.entry
        )
    return experiments.stop(by=by, key=key, reason=action.reason, expected_sequence=action.entry)


def moving(settings: Settings, lending: Portfolio) -> Callable[[dg.OpExecutionContext], None]:
    """What the job `move_experiment` does."""

    def carry_out(context: dg.OpExecutionContext) -> None:
        """Give the challenger the share that the latest report asks for, or end its experiment, if still due."""
        releases = ReleasesResource.of(settings, lending.name)
        action = due_now(context.instance, lending, releases)
        if isinstance(action, Nothing) or action.action == "promote":
            context.log.info(action.why if isinstance(action, Nothing) else f"{action.experiment} is to be promoted")
            return
        try:
            entry = move(action, releases, by=f"{PLATFORM}{context.run_id}")
        except ExperimentConflictError as moved_on:
            context.log.info(f"nothing was done: {moved_on}")
            return
        context.add_output_metadata({**asdict(action), "signed_as": entry.sequence})
        context.log.info(f"{entry.experiment}: {entry.action}, {entry.weight:.0%} of customers. {entry.reason}")

    return carry_out


@dataclass(frozen=True)
class Automation:
    """The jobs that move an experiment and promote who wins, and the sensor that asks for them."""

    jobs: tuple[Any, ...]
    sensor: dg.SensorDefinition


def experiment_automation(settings: Settings, lending: Portfolio, *, chosen: bool) -> Automation:
    """Jobs and sensor of a portfolio; the sensor runs by itself for the chosen one."""
    carry_out = moving(settings, lending)
    op = dg.op(name=f"{MOVE_JOB}_of_{lending.name}", description=carry_out.__doc__)(carry_out)

    @dg.job(name=MOVE_JOB, description=carry_out.__doc__, tags={"portfolio": lending.name})
    def moved() -> None:
        op()

    promoted = dg.define_asset_job(
        PROMOTE_JOB,
        selection=dg.AssetSelection.assets(*(dg.AssetKey([lending.name, asset]) for asset in PROMOTED)),
        description="The challenger that won its experiment becomes the champion, through the gate.",
        tags={"portfolio": lending.name},
    )

    @dg.sensor(
        name=SENSOR,
        jobs=[moved, promoted],
        minimum_interval_seconds=CLOCKED_TICK_SECONDS if settings.clock_file else TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if chosen else dg.DefaultSensorStatus.STOPPED,
        description="Lets an experiment grow on evidence, stops it on a breached guardrail, and promotes who wins.",
    )
    def experiment_ramps(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        releases = ReleasesResource.of(settings, lending.name)
        action = due_now(context.instance, lending, releases)
        if isinstance(action, Nothing):
            return dg.SkipReason(action.why)
        return request(context.instance, action, lending, now=releases.now())

    return Automation((moved, promoted), experiment_ramps)


def request(
    instance: dg.DagsterInstance, action: Due, lending: Portfolio, *, now: datetime
) -> dg.RunRequest | dg.SkipReason:
    """
    The run that does what is due, unless one is on its way: what was done cannot be due any more.

    A run that ended without doing it (killed, or refused by the gate) is asked for again: an end without limit, after
    three attempts at growing distances of the clock, since a harmful challenger decides until then; more customers or a
    promotion three times, and then once for each later report that says the same.
    """
    asked = f"{action.experiment}-{action.entry}-{action.action}"
    told = f"{action.action} of {action.experiment}"
    runs = instance.get_runs(dg.RunsFilter(tags={ACTION_TAG: asked, "portfolio": lending.name}))
    if any(not run.is_finished for run in runs):
        return dg.SkipReason(f"a run does it: {told}")
    if len(runs) >= ATTEMPTS:
        failed = f"{told} failed {len(runs)} times: see run {runs[0].run_id}"
        if action.action == "stop":
            if (waits := _waits(runs, now)) is not None:
                return dg.SkipReason(f"{failed}; it is asked for again in {waits.total_seconds():.0f} s")
        elif any(run.tags.get(REPORT_TAG) == str(action.report) for run in runs):
            return dg.SkipReason(f"{failed}; the next report may ask again")
    promotes = action.action == "promote"
    return dg.RunRequest(
        # Named after the run that failed, since a count would begin anew where old runs are deleted.
        run_key=f"{asked}-after-{runs[0].run_id}" if runs else asked,
        job_name=PROMOTE_JOB if promotes else MOVE_JOB,
        run_config=_promotion(action.challenger) if promotes else {},
        tags={
            ACTION_TAG: asked,
            REPORT_TAG: str(action.report),
            "portfolio": lending.name,
            "cde/why": "experiment",
            REQUESTED_TAG: now.isoformat(),
        },
    )


def _waits(runs: Sequence[dg.DagsterRun], now: datetime) -> timedelta | None:
    """How long an end is not asked for again; None if it is now. `runs` are the earlier ones, youngest first."""
    requested = runs[0].tags.get(REQUESTED_TAG)
    pause = LATEST if len(runs) - ATTEMPTS > 6 else min(LATEST, SOONEST * 2 ** (len(runs) - ATTEMPTS))
    elapsed = now - datetime.fromisoformat(requested) if requested else pause
    return pause - elapsed if timedelta(0) <= elapsed < pause else None


def _promotion(bundle: str) -> Mapping[str, Any]:
    return {"ops": {"champion_model": {"config": {"bundle": bundle}}}}
