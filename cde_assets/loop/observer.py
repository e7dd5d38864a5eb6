"""Looks at what the platform does by itself: runs, reports, experiments and promotions, as they are recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dagster as dg

from cde_assets.loop.timeline import Timeline
from cde_resources.releases import ReleasesResource
from cde_serving.experiments import ExperimentEntry
from cde_serving.ledger import LedgerEntry
from cde_serving.settings import Settings

REPORTS = ("drift_report", "estimated_performance", "live_performance", "experiment_report")
TRAINING, MONITORING = "train_challenger", "monitor"
LATEST_RUNS = 50
NO_VERDICT = "none"  # no experiment runs


@dataclass(frozen=True)
class Report:
    """One materialisation of a report: its name, number and metadata as plain values."""

    name: str
    number: int
    said: Mapping[str, Any]

    @property
    def as_of(self) -> str:
        """The last day that it is about."""
        return str(self.said.get("as_of", ""))

    @property
    def alarms(self) -> dict[str, str]:
        """What it raises an alarm about: short names, and sentences."""
        raised = self.said.get("alarms") or []
        told = {str(one.get("what")): str(one.get("said", one.get("what"))) for one in raised}
        return told if self.said.get("alarm") else {}


@dataclass
class Observer:
    """Reads what is recorded and puts what is new into the timeline; it changes nothing."""

    settings: Settings
    instance: dg.DagsterInstance
    timeline: Timeline
    runs: dict[str, dg.DagsterRun] = field(default_factory=dict)
    reports: list[Report] = field(default_factory=list)
    promotions: tuple[LedgerEntry, ...] = ()
    experiments: tuple[ExperimentEntry, ...] = ()

    def __post_init__(self) -> None:
        self._name = self.settings.portfolio_name()
        self._store = ReleasesResource.of(self.settings, self._name).store()
        self._told: set[tuple[str, str]] = set()
        self._order: dict[str, int] = {}
        for record in self.instance.get_run_records():  # of before the platform ran by itself
            self._know(record)

    def look(self) -> None:
        """Take in everything that is new."""
        self._look_at_runs()
        self._look_at_reports()
        self._look_at_logs()

    @property
    def monitoring(self) -> bool:
        """Whether a monitoring run is queued or going on."""
        return any(run.job_name == MONITORING and not run.is_finished for run in self.runs.values())

    @property
    def champion(self) -> str | None:
        """The bundle that decides."""
        return self.promotions[-1].bundle if self.promotions else None

    @property
    def experiment(self) -> ExperimentEntry | None:
        """The experiment that runs."""
        return self.experiments[-1] if self.experiments and self.experiments[-1].running else None

    def report(self, name: str, as_of: str) -> Report | None:
        """The newest report of a name about a day."""
        return next((one for one in reversed(self.reports) if (one.name, one.as_of) == (name, as_of)), None)

    def trainings(self, sensor: str | None = None) -> list[dg.DagsterRun]:
        """Runs that train a challenger, of one sensor if it is named, oldest first."""
        runs = sorted(self.runs.values(), key=lambda run: self._order[run.run_id])
        return [
            run
            for run in runs
            if run.job_name == TRAINING and (sensor is None or run.tags.get("dagster/sensor_name") == sensor)
        ]

    def _look_at_runs(self) -> None:
        records = self.instance.get_run_records(limit=LATEST_RUNS)
        for record in reversed(records):
            run, before = record.dagster_run, self.runs.get(record.dagster_run.run_id)
            self._know(record)
            if before is None and run.job_name != MONITORING:
                self._tell(run, f"asks for the job {run.job_name}")
            if run.is_finished and (before is None or not before.is_finished):
                self._tell_end(run)

    def _know(self, record: dg.RunRecord) -> None:
        self.runs[record.dagster_run.run_id] = record.dagster_run
        self._order[record.dagster_run.run_id] = record.storage_id

    def _tell_end(self, run: dg.DagsterRun) -> None:
        if run.status is not dg.DagsterRunStatus.SUCCESS:
            said = "; ".join(why_failed(self.instance, run.run_id)) or "no reason was recorded"
            self.timeline.tell(f"job {run.job_name}", f"{run.status.value.lower()}: {said}", style="red")
        elif run.job_name == TRAINING:
            self.timeline.tell(f"job {run.job_name}", "a challenger is trained, judged, and its evidence signed")

    def _tell(self, run: dg.DagsterRun, what: str) -> None:
        tags = run.tags
        by = tags.get("dagster/sensor_name") or tags.get("dagster/schedule_name")
        self.timeline.tell(f"sensor {by}" if by else "a person", what)

    def _look_at_reports(self) -> None:
        for name in REPORTS:
            last = max((one.number for one in self.reports if one.name == name), default=0)
            found = self.instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=dg.AssetKey([self._name, name]), after_storage_id=last),
                limit=LATEST_RUNS,
                ascending=True,
            )
            for record in found.records:
                made = record.asset_materialization
                said = {key: value.value for key, value in made.metadata.items()} if made else {}
                report = Report(name, record.storage_id, said)
                self.reports.append(report)
                self._tell_report(report)

    def _tell_report(self, report: Report) -> None:
        fresh = [said for what, said in report.alarms.items() if (report.name, what) not in self._told]
        self._told |= {(report.name, what) for what in report.alarms}
        if fresh:
            others = f" (and {len(fresh) - 1} more)" if len(fresh) > 1 else ""
            self.timeline.tell(report.name, f"ALARM: {fresh[0]}{others}", style="yellow")
        if not report.alarms and report.name == "drift_report":
            self.timeline.tell(report.name, f"no alarm on {report.said.get('decisions', 0):,} decisions")
        if report.name == "experiment_report" and report.said.get("verdict", NO_VERDICT) != NO_VERDICT:
            self.timeline.tell(report.name, f"{report.said['verdict']}: {report.said.get('said')}")

    def _look_at_logs(self) -> None:
        promotions, experiments = self._store.ledger.entries(), self._store.experiments.entries()
        for promotion in promotions[len(self.promotions) :]:
            self.timeline.tell(
                "the gate",
                f"{promotion.action}: {promotion.bundle[:12]} decides as champion",
                at=datetime.fromisoformat(promotion.at),
                style="bold green",
            )
        for entry in experiments[len(self.experiments) :]:
            self._tell_experiment(entry)
        self.promotions, self.experiments = promotions, experiments

    def _tell_experiment(self, entry: ExperimentEntry) -> None:
        challenger = entry.challenger.bundle[:12] if entry.challenger else "shadows"
        told = {
            "start": f"{challenger} decides for {entry.weight:.0%} of customers",
            "weight": f"{challenger} decides for {entry.weight:.0%} of customers",
            "stop": f"the experiment ends: {entry.reason}",
        }[entry.action]
        self.timeline.tell("experiment", told, at=datetime.fromisoformat(entry.at), style="bold")


def why_failed(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """The failed blocking checks and the reasons given by failed steps of a run, in words without values of people."""
    said = stopping_checks(instance, run_id)
    for event in _events(instance, run_id):
        if event.is_step_failure and event.step_failure_data.user_failure_data is not None:
            said.append(str(event.step_failure_data.user_failure_data.description))
    return said


def stopping_checks(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """The blocking checks that stopped a run, in words; empty where it failed of itself."""
    said = []
    for event in _events(instance, run_id):
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check: Any = event.event_specific_data
            if not check.passed and check.blocking:
                said.append(f"{check.check_name.replace('_', ' ')} is not true: {check.description or ''}".strip(": "))
    return said


def _events(instance: dg.DagsterInstance, run_id: str) -> list[dg.DagsterEvent]:
    return [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event is not None]
