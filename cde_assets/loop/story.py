"""The story of the loop: the world goes on, and the platform notices, retrains, tries out, promotes and refuses."""

import math
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass, field
from datetime import date, timedelta

import dagster as dg
from rich.console import Console

from cde_assets.api_keys import key_issuer
from cde_assets.demo import run_job
from cde_assets.loop.lender import LoopLender
from cde_assets.loop.observer import Observer, Report, stopping_checks
from cde_assets.loop.platform import LOCATION, daemon, prepare_quick_home, service
from cde_assets.loop.timeline import WORLD, Timeline
from cde_assets.processes import Server
from cde_assets.stack import START_SECONDS, program
from cde_assets.traffic.session import Session
from cde_domain.portfolio import load_portfolio
from cde_serving.settings import Settings

WEEK, RATE = 7, 150
DRIFT = 0.8  # standard deviations by which everybody's standing and income are lower from then on
STEP_SPARE = 1.3  # more customers than a step of the ramp asks for, since the shares are drawn
STEP_DAYS, STEP_RATE = 2, 900  # more applicants where the challenger's share is small
MOST_STEPS = 10
FOLLOWED_WITHIN = 2.5  # seconds until a service follows an experiment's new weight

RUN_LIMIT, TRAINING_LIMIT = 300.0, 900.0  # patience on a machine that does other things too
LOOK_SECONDS = 0.5


class LoopError(RuntimeError):
    """What did not happen."""


@dataclass
class Story:
    """One run of the loop, chapter by chapter; `facts` are what the summary is made of."""

    settings: Settings
    lender: LoopLender
    timeline: Timeline
    console: Console
    facts: dict[str, object] = field(default_factory=dict)
    _observer: Observer = field(init=False)
    _servers: list[Server] = field(init=False, default_factory=list)
    _key: str = field(init=False, default="")

    def first_champion(self) -> None:
        """A person runs the whole job once, as `make demo` does."""
        self.timeline.tell(WORLD, "the loan book is there; a person trains and releases the first model")
        log = self.settings.home / "logs" / "first_training.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        shown = self.console.status("training, judging, promoting ...")
        # MLflow speaks to standard error.
        with log.open("w", encoding="utf-8") as file, shown, redirect_stderr(file):
            if not run_job(self.settings, Console(file=file, width=160)):
                raise LoopError(f"the first model was not promoted: see {log}")

    def live(self) -> None:
        """Start the platform, and tell the story on it."""
        prepare_quick_home(self.settings)
        with ExitStack() as stack:
            self._observer = Observer(self.settings, stack.enter_context(dg.DagsterInstance.get()), self.timeline)
            self._servers = [stack.enter_context(one) for one in (service(self.settings), daemon(self.settings))]
            self._servers[0].wait(START_SECONDS)
            self._key = _key(self.settings)
            self._observer.look()
            self.timeline.tell(WORLD, "scoring service and Dagster's daemon run from here on; nobody touches them")
            self._ordinary_week()
            self._drift_appears()
            self._challenger_comes()
            self._ramp()
            self._harmful_change()

    def _ordinary_week(self) -> None:
        self._play(WEEK, RATE, drift=0.0, what="applicants like those of the loan book")
        report = self._monitored("drift_report")
        if report.alarms:
            raise LoopError(
                f"the drift report of an ordinary week raised an alarm: {next(iter(report.alarms.values()))}"
            )

    def _drift_appears(self) -> None:
        began = self._today
        self._play(WEEK, RATE, drift=DRIFT, what="the applicants have changed: poorer and riskier")
        last = self._monitored("drift_report")
        alarmed = [report for report in self._observer.reports if report.name == "drift_report" and report.alarms]
        if not alarmed:
            raise LoopError(f"no drift report up to {last.as_of} raised an alarm")
        self.facts |= {"drift_began": str(began), "drift_noticed": alarmed[0].as_of}

    def _challenger_comes(self) -> None:
        look = self._observer
        self._until(lambda: bool(look.trainings("drift_retrains")), RUN_LIMIT, "a training asked for by drift_retrains")
        run_id = look.trainings("drift_retrains")[0].run_id
        self._until(lambda: look.runs[run_id].is_finished, TRAINING_LIMIT, "the end of the training")
        if look.runs[run_id].status is not dg.DagsterRunStatus.SUCCESS:
            raise LoopError("the training that drift asked for failed")
        self._until(lambda: look.experiment is not None, RUN_LIMIT, "an experiment with the challenger")
        experiment = look.experiment
        assert experiment is not None and experiment.challenger is not None
        self.facts |= {"challenger": experiment.challenger.bundle, "champion_before": look.champion}

    def _ramp(self) -> None:
        look, challenger = self._observer, self.facts["challenger"]
        for _ in range(MOST_STEPS):
            if look.champion == challenger:
                break
            experiment = look.experiment
            if experiment is None:
                raise LoopError("the experiment ended before the challenger was promoted")
            self._step(experiment.weight)
        if look.champion != challenger:
            raise LoopError(f"the challenger was not promoted after {MOST_STEPS} steps")
        mine = [entry for entry in look.experiments if entry.challenger and entry.challenger.bundle == challenger]
        self.facts |= {
            "ramp": [entry.weight for entry in mine if entry.action in ("start", "weight")],
            "champion": look.champion,
            "promoted_on": look.promotions[-1].at[:10],
        }
        self._until(lambda: look.experiment is None, RUN_LIMIT, "the end of the experiment")

    def _step(self, weight: float) -> None:
        """Days with enough new customers for a step of the ramp, and what the sensors make of them."""
        look = self._observer
        days, rate = self._needed(weight)
        before = len(look.experiments), len(look.promotions)
        time.sleep(FOLLOWED_WITHIN)
        self._play(days, rate, drift=DRIFT, what="applicants as last week")
        report = self._monitored("experiment_report")
        if report.said.get("verdict") in ("ramp", "promote", "stop"):
            moved = f"what follows on the verdict {report.said['verdict']}"
            self._until(lambda: (len(look.experiments), len(look.promotions)) != before, RUN_LIMIT, moved)

    def _needed(self, weight: float) -> tuple[int, int]:
        rules = load_portfolio(self.settings.portfolio).experiment
        days = max(STEP_DAYS, math.ceil(rules.min_days) + 1)
        return days, max(STEP_RATE, math.ceil(STEP_SPARE * rules.min_decisions / (days * weight)))

    def _harmful_change(self) -> None:
        """An edit of the policy that approves everybody, brought on by a person through the ordinary way."""
        look = self._observer
        champion, trainings, experiments = look.champion, len(look.trainings()), len(look.experiments)
        self.lender.approve_everybody()
        self.timeline.tell("a person", "edits policy.yaml: hardly anybody is turned down any more", style="magenta")
        self._launch("train_challenger")
        self._until(lambda: len(look.trainings()) > trainings, RUN_LIMIT, "the training of the harmful challenger")
        run_id = look.trainings()[-1].run_id
        self._until(lambda: look.runs[run_id].is_finished, TRAINING_LIMIT, "the end of that training")
        if look.runs[run_id].status is not dg.DagsterRunStatus.SUCCESS:
            stopped = stopping_checks(look.instance, run_id)
            if not stopped:
                raise LoopError("the training of the harmful challenger failed of itself, and no check stopped it")
            self.facts |= {"stopped_by": "the gate", "stopped_because": "; ".join(stopped)}
        else:
            self._until(lambda: len(look.experiments) > experiments, RUN_LIMIT, "an experiment with it")
            harmful = look.experiments[-1]
            for _ in range(MOST_STEPS):
                if look.experiment is None:
                    break
                self._step(harmful.weight)
            if look.experiment is not None or look.experiments[-1].action != "stop":
                raise LoopError("nothing stopped the harmful challenger")
            self.facts |= {"stopped_by": "a guardrail", "stopped_because": look.experiments[-1].reason}
            self.facts["harmful_share"] = max(entry.weight for entry in look.experiments[experiments:])
        if look.champion != champion:
            raise LoopError("the harmful challenger became champion")

    @property
    def fires(self) -> int:
        """How often the drift sensor asked for a training."""
        return len(self._observer.trainings("drift_retrains")) if self._servers else 0

    @property
    def _today(self) -> date:
        return self.timeline.clock().date()

    def _play(self, days: int, rate: int, *, drift: float, what: str) -> None:
        self.timeline.tell(WORLD, f"{days} days with {rate} applications each: {what}")
        session = Session.of(self.settings, seed=1, drift=drift, key=self._key)
        session.play(days, rate)
        if session.tally.problems:
            raise LoopError(f"the service refused applications: {dict(session.tally.problems)}")
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(session.tally.decisions.items()))
        self.timeline.tell("scoring service", told)

    def _monitored(self, name: str) -> Report:
        """The report about the last day that is over, once the daemon has made it."""
        as_of = str(self._today - timedelta(days=1))
        # A training may be before it in the queue.
        self._until(lambda: self._observer.report(name, as_of) is not None, TRAINING_LIMIT, f"{name} of {as_of}")
        self._until(lambda: not self._observer.monitoring, RUN_LIMIT, "the end of the monitoring run")
        report = self._observer.report(name, as_of)
        assert report is not None
        return report

    def _launch(self, job: str) -> None:
        """Ask for a job as the button in the UI does: it waits in the daemon's queue."""
        done = subprocess.run(
            [program("dagster"), "job", "launch", *LOCATION, "-j", job],
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT,
            check=False,
            env=os.environ,
        )
        if done.returncode:
            raise LoopError(f"the job {job} could not be launched: {done.stderr[-500:]}")

    def _until(self, happened: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        with self.console.status(f"waiting for {what} ..."):
            while True:
                for server in self._servers:
                    server.check()
                self._observer.look()
                if happened():
                    return
                if time.monotonic() > end:
                    raise LoopError(
                        f"after {seconds:.0f} s there is still not {what}: see {self.settings.home / 'logs'}"
                    )
                time.sleep(LOOK_SECONDS)


def _key(settings: Settings) -> str:
    import asyncio

    with key_issuer(settings) as issuer:
        return asyncio.run(issuer.create(tenant="default", scopes=("score",), name="traffic of the loop"))[1]
