"""Sensors that train a challenger when a report says that the champion's world has changed."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import dagster as dg
from pydantic import BaseModel, ConfigDict

from cde_assets.automation.links import asset_link
from cde_assets.automation.reports import DRIFT, ESTIMATED, LIVE, Report, last_day, report_of, reports_after
from cde_assets.automation.training_runs import (
    EPISODE,
    TRAINING_JOB,
    LastTraining,
    Why,
    training_failed,
    training_request,
    unfinished_training,
)
from cde_assets.automation.watcher import Watcher
from cde_domain.decisions.monitoring.episodes import Watch
from cde_resources.alerts.alert import Alert

TRAINS = (
    f"Asked for a challenger: the job {TRAINING_JOB} trains it from the newest loans. The champion answers until gate "
    "and experiment let another one take its place."
)
NO_TRAINING_MENDS = "Nothing: training mends no such alarm, so that a person has to decide what to do."
GONE = "Nothing: a later report no longer says so."
REPLACED = "Nothing: another model was promoted since, which the next report judges."
ASKED_BEFORE = "Nothing more: a challenger was asked for before."


class Memory(BaseModel):
    """The cursor of a retraining sensor: what it saw of each report, and the newest training it knows of."""

    model_config = ConfigDict(frozen=True)

    watches: dict[str, Watch] = {}
    training: LastTraining = LastTraining()


def drift_retrains(watcher: Watcher) -> dg.SensorDefinition:
    """The sensor of this name."""
    return _retraining(
        watcher,
        "drift",
        (DRIFT,),
        "A drift report that raises an alarm has a challenger trained: once an episode, and not within the cooldown.",
    )


def performance_decay_retrains(watcher: Watcher) -> dg.SensorDefinition:
    """The sensor of this name."""
    return _retraining(
        watcher,
        "decay",
        (ESTIMATED, LIVE),
        "Estimated or live performance below the owner's numbers has a challenger trained: once an episode, and not "
        "within the cooldown.",
    )


def _retraining(watcher: Watcher, why: Why, reports: Sequence[str], description: str) -> dg.SensorDefinition:
    name = {"drift": "drift_retrains", "decay": "performance_decay_retrains"}[why]

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return Look(watcher, context.instance, why, read_memory(context.cursor)).result(reports)

    return watcher.sensor(name, evaluate, description=description, job_name=TRAINING_JOB)


def read_memory(cursor: str | None) -> Memory:
    """The memory in a cursor; none yet is an empty one."""
    return Memory.model_validate_json(cursor) if cursor else Memory()


class Look:
    """
    One look of a retraining sensor at its reports.

    Everything it does can be done again: until Dagster has kept its cursor together with the run that it asks for, a
    look that is cut short leaves nothing behind but alerts, whose keys are the same the next time.
    """

    def __init__(self, watcher: Watcher, instance: dg.DagsterInstance, why: Why, memory: Memory) -> None:
        self._watcher = watcher
        self._instance = instance
        self._why: Why = why
        self._now = watcher.clock()
        self._watches = dict(memory.watches)
        self._training = memory.training.now(instance, watcher.name, self._now)
        self._news: dict[str, list[Report]] = {}
        self._standing: dict[str, tuple[str, ...]] = {}

    def result(self, reports: Sequence[str]) -> dg.SensorResult:
        """What the sensor answers."""
        for name in reports:
            self._read(name)
        waiting_for = [name for name in reports if self._is_due(name)]
        replaced = [name for name in waiting_for if self._is_replaced(name)]
        due = [name for name in waiting_for if name not in replaced]
        decided, request = self._decide(due)
        for name in reports:
            did = decided if name in due else REPLACED if name in replaced else None
            self._tell(name, did or ASKED_BEFORE, asked=request is not None and name in due)
        cursor = Memory(watches=self._watches, training=self._training).model_dump_json()
        waiting = self._watcher.alerter.retry()
        if request is not None:
            return dg.SensorResult(run_requests=[request], cursor=cursor)
        said = decided or (REPLACED if replaced else "No alarm to answer.")
        return dg.SensorResult(skip_reason=" ".join([said, *waiting]), cursor=cursor)

    def _read(self, name: str) -> None:
        watch = self._watches.get(name, Watch())
        for report in reports_after(self._instance, self._watcher.key(name), watch.seen):
            before, watch = watch, watch.after(report.sighting, last_day(self._now))
            if watch.heard != report.sighting.number:
                continue
            if before.is_of_another(report.sighting):
                self._close(name, before, REPLACED)
            if report.sighting.judged:
                self._standing[name] = report.sighting.kinds
                if not report.sighting.kinds:
                    self._close(name, before, GONE)
            if watch.news(report.sighting):
                repeated = set(report.sighting.kinds)
                untold = [one for one in self._news.get(name, []) if not repeated.issuperset(one.sighting.kinds)]
                self._news[name] = [*untold, report]
                watch = watch.having_told(report.sighting)
        self._watches[name] = watch

    def _close(self, name: str, watch: Watch, did: str) -> None:
        """Tell of alarms that came and went since the last look."""
        for report in self._news.pop(name, []):
            self._alert(name, report, watch, did)

    def _is_due(self, name: str) -> bool:
        watch = self._watches[name]
        if watch.began is None or watch.is_due:
            return watch.is_due
        return training_failed(self._instance, self._watcher.name, f"{name}:{watch.began}")

    def _is_replaced(self, name: str) -> bool:
        """Whether an episode is about a champion that decides no more."""
        bundle = self._watches[name].bundle
        return bundle is not None and self._watcher.champion() not in (None, bundle)

    def _decide(self, due: list[str]) -> tuple[str | None, dg.RunRequest | None]:
        """What is done about the reports that ask for training, in words, and the run to ask for."""
        if not due:
            return None, None
        if not self._watcher.has_champion():
            return "Nothing: no model is promoted yet.", None
        if unfinished_training(self._instance, self._watcher.name):
            return "Nothing more: a challenger is being trained already.", None
        if experiment := self._watcher.experiment():
            return f"Nothing yet: a challenger is in the experiment {experiment}, whose end is waited for.", None
        over = self._training.over(timedelta(days=self._watcher.cooldown_days))
        if over is not None and self._now < over:
            return self._waits_until(over), None
        episodes = []
        for name in due:
            watch = self._watches[name] = self._watches[name].having_asked()
            episodes.append(f"{name}:{watch.began}:{watch.asked}")
        self._training = self._training.model_copy(update={"at": self._now})
        episode = f"{due[0]}:{self._watches[due[0]].began}"
        return TRAINS, training_request(
            self._watcher.name, self._why, run_key=" ".join(episodes), now=self._now, tags={EPISODE: episode}
        )

    def _waits_until(self, over: datetime) -> str:
        return (
            f"Nothing yet: after a training there is none for {self._watcher.cooldown_days:g} days. From "
            f"{over:%Y-%m-%d} on a challenger is trained if the alarm still stands."
        )

    def _tell(self, name: str, did: str, *, asked: bool) -> None:
        """Tell the news, or that an episode that was told before is answered; `did` is about what training mends."""
        watch = self._watches[name]
        told = self._news.pop(name, [])
        if not told and asked:
            standing = report_of(self._instance, self._watcher.key(name), watch.stands or watch.began or 0)
            told = [standing] if standing else []
        for report in told:
            self._alert(name, report, watch, self._did(name, report, did))

    def _did(self, name: str, report: Report, did: str) -> str:
        watch, sighting = self._watches[name], report.sighting
        if sighting.retrains and watch.began is not None and sighting.number >= watch.began:
            return did
        if not set(sighting.kinds) & set(self._standing.get(name, sighting.kinds)):
            return GONE
        return NO_TRAINING_MENDS

    def _alert(self, name: str, report: Report, watch: Watch, did: str) -> None:
        kinds = "+".join(report.sighting.kinds)
        self._watcher.alerter.send(
            Alert(
                key=f"{name}:{report.sighting.number}:{kinds}:{watch.asked}",
                title=f"{name.replace('_', ' ').capitalize()} raises an alarm",
                what=report.said(),
                where=asset_link(self._watcher.settings, self._watcher.key(name)),
                did=did,
            )
        )
