"""What is watched every day: the job `monitor`, its schedule, and the sensor of outcomes that came later."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from cde_assets.automation.training_runs import UNFINISHED
from cde_assets.decisions import MONITORED
from cde_assets.decisions.due import days_to_follow, days_to_record, left_out
from cde_assets.decisions.known_labels import said, seen_files
from cde_checks.decisions import FIRST, LAST
from cde_domain.clock import Clock
from cde_domain.decisions.monitoring.recorded import decisions_file
from cde_domain.digests import json_digest
from cde_domain.loan_book import LoanBookError
from cde_domain.portfolio import Portfolio
from cde_resources.clock import opened_clock
from cde_resources.decision_log import DecisionLogResource
from cde_serving.decision_log import LogUnavailableError
from cde_serving.settings import Settings

MONITOR_JOB = "monitor"
FOLLOW_JOB = "follow_outcomes"
REST = timedelta(hours=1)  # between two runs for late outcomes, which come one by one
SECONDS, SECONDS_BY_FILE = 60, 5  # between two looks; a clock file lets days pass in minutes
STILL_SECONDS = 3.0

Evaluated = TypeVar("Evaluated")

WILL_RETRY, RETRIED_AS = "dagster/will_retry", "dagster/auto_retry_run_id"

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(frozen=True)
class Watch:
    """What schedule and sensor of one portfolio look at."""

    portfolio: Portfolio
    home: Path
    log: DecisionLogResource
    clock: Clock

    @classmethod
    def of(cls, settings: Settings, portfolio: Portfolio) -> "Watch":
        """As the settings say."""
        return cls(
            portfolio,
            settings.portfolio_home(portfolio.name),
            DecisionLogResource.of(settings, portfolio.name),
            opened_clock(str(settings.clock_file) if settings.clock_file else None),
        )

    def today(self) -> date:
        """The day (UTC)."""
        return self.clock().date()


def monitoring(
    settings: Settings, portfolio: Portfolio, *, chosen: bool
) -> tuple[list[Any], list[dg.ScheduleDefinition], list[dg.SensorDefinition]]:
    """The jobs, the schedule and the sensor; both run by themselves for the chosen portfolio."""
    watch = Watch.of(settings, portfolio)
    tags = {"portfolio": portfolio.name}
    watched = dg.AssetSelection.tag(*next(iter(MONITORED.items())))
    outcomes = dg.AssetSelection.assets(dg.AssetKey([portfolio.name, "outcomes"]))
    monitor = dg.define_asset_job(
        MONITOR_JOB,
        selection=watched,
        tags=tags,
        description="The decisions and outcomes of days that are over, and every report on how the model does.",
    )
    follow = dg.define_asset_job(
        FOLLOW_JOB,
        selection=outcomes.downstream() & watched,
        tags=tags,
        description="Outcomes that became known later, in the days of their decisions, and the reports on them.",
    )
    schedule = dg.ScheduleDefinition(
        name="daily_monitoring",
        job=monitor,
        cron_schedule="20 0 * * *",
        execution_fn=daily_monitoring(watch),
        default_status=dg.DefaultScheduleStatus.RUNNING
        if chosen and not settings.clock_file
        else dg.DefaultScheduleStatus.STOPPED,
        description=daily_monitoring.__doc__,
    )
    status = dg.DefaultSensorStatus.RUNNING if chosen else dg.DefaultSensorStatus.STOPPED
    by_clock = dg.SensorDefinition(
        name="daily_monitoring_by_clock",
        job=monitor,
        evaluation_fn=once_still(settings.clock_file, daily_monitoring_by_clock(watch)),
        minimum_interval_seconds=SECONDS_BY_FILE,
        default_status=status,
        description=daily_monitoring_by_clock.__doc__,
    )
    sensor = dg.SensorDefinition(
        name="matured_outcomes_reevaluate",
        job=follow,
        evaluation_fn=matured_outcomes(watch),
        minimum_interval_seconds=SECONDS_BY_FILE if settings.clock_file else SECONDS,
        default_status=status,
        description=matured_outcomes.__doc__,
    )
    return [monitor, follow], [schedule], [sensor, by_clock] if settings.clock_file else [sensor]


def daily_monitoring(watch: Watch) -> Callable[[dg.ScheduleEvaluationContext], dg.RunRequest | dg.SkipReason]:
    """One run for all days that are over and not recorded, and again until the reports on them were made."""

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _due(context.instance, watch)

    return evaluate


def daily_monitoring_by_clock(watch: Watch) -> Callable[[dg.SensorEvaluationContext], dg.SensorResult | dg.SkipReason]:
    """What the schedule `daily_monitoring` asks for, where a file tells the time: cron goes by the machine's clock."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        asked = _due(context.instance, watch)
        if isinstance(asked, dg.SkipReason):
            return asked
        cursor = f"{asked.tags[FIRST]}..{asked.tags[LAST]} on {watch.today()}"
        if context.cursor == cursor:
            return dg.SkipReason("these days were asked for today, and the run did not succeed")
        return dg.SensorResult(run_requests=[asked], cursor=cursor)

    return evaluate


def once_still(
    clock_file: Path | None, evaluate: Callable[[dg.SensorEvaluationContext], Evaluated]
) -> Callable[[dg.SensorEvaluationContext], Evaluated | dg.SkipReason]:
    """The same once the clock has stood still for some seconds: days that pass one by one are one run and not many."""

    def waited(context: dg.SensorEvaluationContext) -> Evaluated | dg.SkipReason:
        if clock_file and clock_file.exists() and time.time() - clock_file.stat().st_mtime < STILL_SECONDS:
            return dg.SkipReason("days are passing")
        return evaluate(context)

    return waited


def _due(instance: dg.DagsterInstance, watch: Watch) -> dg.RunRequest | dg.SkipReason:
    today = watch.today()
    try:
        with watch.log.open() as log:
            due = days_to_record(log.engine, watch.home, watch.portfolio.name, today)
            without = left_out(log.engine, watch.portfolio.name)
    except LogUnavailableError as error:
        return _unavailable(watch, error)
    if busy := _busy(instance, watch, MONITOR_JOB):
        return dg.SkipReason(busy)
    latest = _run(instance, watch, MONITOR_JOB, FINISHED)
    if not due and (latest is None or latest.is_success):
        return dg.SkipReason(f"every day until {today - timedelta(days=1)} is recorded and reported on{without}")
    first, last = (due[0], due[-1]) if due else (today - timedelta(days=1),) * 2
    tags = _range(first, last)
    # The key tells attempts apart, and repeats when a tick is evaluated again.
    attempts = instance.get_runs_count(_filter(watch, MONITOR_JOB, FINISHED, tags))
    return dg.RunRequest(run_key=f"{first}..{last}/{attempts}", tags=tags)


def matured_outcomes(watch: Watch) -> Callable[[dg.SensorEvaluationContext], dg.SensorResult | dg.SkipReason]:
    """Outcomes that became known of mature days: recorded in those days, and the model judged by them again."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        now = watch.clock()
        try:
            changed = _changed(watch, now.date())
        except LogUnavailableError as error:
            return _unavailable(watch, error)
        if not changed:
            return dg.SkipReason("nothing more is known of the loans of mature days")
        if busy := _busy(context.instance, watch, MONITOR_JOB) or _busy(context.instance, watch, FOLLOW_JOB):
            return dg.SkipReason(busy)
        # A state is asked for once a day: what failed on it would fail again.
        state = json_digest({day.isoformat(): known for day, known in changed.items()} | {"day": str(now.date())})
        asked = json.loads(context.cursor) if context.cursor else {}
        if asked.get("state") == state:
            return dg.SkipReason("what is known by now was asked for today, and the run did not succeed")
        if asked and now - REST < datetime.fromisoformat(asked["at"]) <= now:
            return dg.SkipReason(f"outcomes of {len(changed)} days wait for {REST} to pass since {asked['at']}")
        request = dg.RunRequest(run_key=state[:32], tags=_range(min(changed), max(changed)))
        return dg.SensorResult(run_requests=[request], cursor=json.dumps({"state": state, "at": now.isoformat()}))

    return evaluate


def _changed(watch: Watch, today: date) -> Mapping[date, str]:
    matures = watch.portfolio.outcome.matures_after_days
    with watch.log.open() as log:
        try:
            labels = said(watch.home, watch.portfolio)
        except LoanBookError:  # the run says what is wrong with it, once for each state of the files
            return {today - timedelta(days=1): json_digest(str(seen_files(watch.home)))}
        return days_to_follow(log.engine, watch.home, watch.portfolio.name, labels, today, matures)


def _unavailable(watch: Watch, error: LogUnavailableError) -> dg.SkipReason:
    """Before anything was recorded there may be no log yet; later the evaluation fails, and people are told."""
    if decisions_file(watch.home, watch.today()).parent.exists():
        raise error
    return dg.SkipReason(str(error))


def _busy(instance: dg.DagsterInstance, watch: Watch, job: str) -> str | None:
    """Which run of a job is not over yet: a run whose process was killed is started once more by Dagster itself."""
    if run := _run(instance, watch, job, UNFINISHED):
        return f"run {run.run_id[:8]} is at it"
    newest = _run(instance, watch, job, [*UNFINISHED, *FINISHED])
    if newest and newest.is_failure and newest.tags.get(WILL_RETRY) == "true" and RETRIED_AS not in newest.tags:
        return f"run {newest.run_id[:8]} was lost and is about to be started once more"
    return None


def _range(first: date, last: date) -> dict[str, str]:
    return {FIRST: first.isoformat(), LAST: last.isoformat()}


def _run(
    instance: dg.DagsterInstance, watch: Watch, job: str, statuses: Iterable[dg.DagsterRunStatus]
) -> dg.DagsterRun | None:
    return next(iter(instance.get_runs(_filter(watch, job, statuses), limit=1)), None)


def _filter(
    watch: Watch, job: str, statuses: Iterable[dg.DagsterRunStatus], tags: Mapping[str, str] | None = None
) -> dg.RunsFilter:
    return dg.RunsFilter(
        job_name=job, statuses=list(statuses), tags={"portfolio": watch.portfolio.name, **(tags or {})}
    )
