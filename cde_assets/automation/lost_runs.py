"""The sensor that ends runs whose process is gone, so that Dagster starts them again."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from cde_assets.automation.finished_runs import is_of
from cde_assets.automation.watcher import Watcher
from cde_domain.clock import utc_now

BEGUN = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
GRACE = timedelta(seconds=30)  # a code server tells of the end of its own runs within a second
LAUNCHED_BY = ".dagster/grpc_info"
HERE = ("localhost", "127.0.0.1")


def lost_runs_end(watcher: Watcher) -> dg.SensorDefinition:
    """The sensor of this name."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        ended = end_lost_runs(context.instance, watcher.name)
        return dg.SensorResult(skip_reason=f"{len(ended)} runs had lost their process.")

    return watcher.sensor(
        "lost_runs_end",
        evaluate,
        description="Ends, as failed, runs whose process was killed with everything that watched it: otherwise they "
        "would hold their place for hours. Dagster then starts them once more.",
    )


def end_lost_runs(instance: dg.DagsterInstance, portfolio: str) -> list[str]:
    """Report the portfolio's runs without a process on this machine as failed; returns their ids."""
    lost = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(BEGUN))):
        run = record.dagster_run
        updated = record.update_timestamp.replace(tzinfo=record.update_timestamp.tzinfo or UTC)
        if not is_of(run, portfolio) or not _was_launched_here(run) or not _is_settled(updated):
            continue
        process = _process_of(instance, run.run_id)
        if process is None or _is_alive(process):
            continue
        now = instance.get_run_by_id(run.run_id)
        if now is not None and now.status in BEGUN:  # it may have ended by itself meanwhile
            instance.report_run_failed(now, "The run's process is gone; it was killed, or the machine went down.")
            lost.append(run.run_id)
    return lost


def _is_settled(updated: datetime) -> bool:
    return abs(utc_now() - updated) > GRACE


def _was_launched_here(run: dg.DagsterRun) -> bool:
    told = run.tags.get(LAUNCHED_BY)
    return told is not None and any(f'"host": "{host}"' in told for host in HERE)


def _process_of(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The process that said it carries out a run."""
    for record in instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records:
        event = record.event_log_entry.dagster_event
        if event is not None and (event.message or "").startswith("Started process for run"):
            told = event.engine_event_data.metadata.get("pid")
            return int(str(told.value)) if told is not None else None
    return None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # After a restart of the machine the number may be another program's.
    command = Path(f"/proc/{process}/cmdline")
    try:
        return b"python" in command.read_bytes()
    except OSError:
        return not command.parent.parent.exists()
