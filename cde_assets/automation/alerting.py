"""Sensors that tell people of failed runs and failed checks."""

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorStatus

from cde_assets.automation.failed_ticks import own_states
from cde_assets.automation.finished_runs import Cursor, ended_runs, evaluations_in, read_cursor
from cde_assets.automation.links import asset_link, run_link
from cde_assets.automation.reports import DRIFT, ESTIMATED, LIVE, is_heard
from cde_assets.automation.training_runs import TRAINING_JOB
from cde_assets.automation.watcher import Watcher
from cde_assets.experiments.moving import REPORT, SENSOR
from cde_assets.failures import failure_in_words
from cde_resources.alerts.alert import Alert, Severity

FAILED = (dg.DagsterEventType.RUN_FAILURE,)
ENDED = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
TOLD_BY = {DRIFT: "drift_retrains", ESTIMATED: "performance_decay_retrains", LIVE: "performance_decay_retrains"}
ENDING = (REPORT, "guardrails_hold")
ENDS = (
    f"The sensor {SENSOR} ends the experiment within seconds, also where promotion is manual: the challenger loses its "
    "customers, and the champion decides alone."
)
RETRIED = "dagster/will_retry"
PROMOTING_JOBS = ("train_and_release", TRAINING_JOB)


def failures_alert(watcher: Watcher) -> dg.SensorDefinition:
    """The sensor of this name."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        ended, cursor = ended_runs(context.instance, read_cursor(context.cursor), FAILED, watcher.name)
        told = 0
        for run in ended:
            alert = failure_alert(watcher, context.instance, run)
            told += alert is not None and watcher.alerter.send(alert)
        return _result(watcher, cursor, f"{told} failed runs told.")

    return watcher.sensor("failures_alert", evaluate, description="Tells people of every run that failed.")


def failed_checks_alert(watcher: Watcher) -> dg.SensorDefinition:
    """The sensor of this name."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        ended, cursor = ended_runs(context.instance, read_cursor(context.cursor), ENDED, watcher.name)
        told = 0
        for run in ended:
            for evaluation in evaluations_in(context.instance, run.run_id):
                if not evaluation.passed and not _is_told_elsewhere(context, watcher, run, evaluation):
                    ends = _ends_experiment(context, watcher, evaluation)
                    told += watcher.alerter.send(check_alert(watcher, evaluation, ends_experiment=ends))
        return _result(watcher, cursor, f"{told} failed checks told.")

    return watcher.sensor(
        "failed_checks_alert",
        evaluate,
        description="Tells people of every failed check, also of those that stop nothing, when its run has ended.",
    )


def _result(watcher: Watcher, cursor: Cursor, said: str) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=" ".join([said, *watcher.alerter.retry()]), cursor=cursor.model_dump_json())


def failure_alert(watcher: Watcher, instance: dg.DagsterInstance, run: dg.DagsterRun) -> Alert | None:
    """What is told of a failed run; None if blocking checks alone stopped it, which are told of by themselves."""
    events = [
        record.event_log_entry.dagster_event
        for record in instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    ]
    reasons = [failure_in_words(event) for event in events if event is not None]
    told = [reason for reason in reasons if reason]
    if reasons and not told:
        return None
    name = "an asset" if run.job_name.startswith("__") else run.job_name
    return Alert(
        key=f"run_failed:{run.job_name}:{'|'.join(sorted(reason[:200] for reason in told))}",
        title=f"A run of {name} failed",
        what="\n".join(told) or "It ended without a failed step: its process was killed, or never started.",
        where=run_link(watcher.settings, run.run_id),
        did=_done_after(run),
        severity="critical",
    )


def _done_after(run: dg.DagsterRun) -> str:
    again = (
        "It starts the run once more by itself." if run.tags.get(RETRIED) == "true" else "It does not start it again."
    )
    champion = " Nothing was promoted; the champion answers on." if run.job_name in PROMOTING_JOBS else ""
    return again + champion


def check_alert(watcher: Watcher, evaluation: dg.AssetCheckEvaluation, *, ends_experiment: bool = False) -> Alert:
    """What is told of a failed check, on which an experiment may end."""
    asset = evaluation.asset_key.path[-1]
    stops = evaluation.blocking and evaluation.severity is dg.AssetCheckSeverity.ERROR
    severity: Severity = "critical" if stops else "warning"
    stood_by = ENDS if ends_experiment else "Nothing: the check stops no run. A person has to look."
    return Alert(
        key=f"check_failed:{asset}:{evaluation.check_name}",
        title=f"{asset}: the check '{evaluation.check_name.replace('_', ' ')}' failed",
        what=evaluation.description or "The check failed.",
        where=asset_link(watcher.settings, evaluation.asset_key, check=evaluation.check_name),
        did=(
            f"Stopped the run there: nothing was made from {asset}, and nothing is promoted on it."
            if stops
            else stood_by
        ),
        severity=severity,
    )


def _ends_experiment(
    context: dg.SensorEvaluationContext, watcher: Watcher, evaluation: dg.AssetCheckEvaluation
) -> bool:
    """Whether a check says what a sensor that is on ends an experiment for."""
    about = (evaluation.asset_key.path[-1], evaluation.check_name)
    return about == ENDING and not _is_switched_off(context, watcher, SENSOR)


def _is_told_elsewhere(
    context: dg.SensorEvaluationContext, watcher: Watcher, run: dg.DagsterRun, evaluation: dg.AssetCheckEvaluation
) -> bool:
    """Whether a retraining sensor that is on tells of the same alarm, together with what was done about it."""
    asset = evaluation.asset_key.path[-1]
    if asset not in TOLD_BY or _is_switched_off(context, watcher, TOLD_BY[asset]):
        return False
    return is_heard(context.instance, evaluation.asset_key, run.run_id, watcher.clock())


def _is_switched_off(context: dg.SensorEvaluationContext, watcher: Watcher, sensor: str) -> bool:
    """Whether a sensor of this code location is off: somebody switched it off, or it is so by default."""
    states = [state.status for state in own_states(context) if state.instigator_name == sensor]
    return InstigatorStatus.STOPPED in states if states else not watcher.chosen
