"""A real Dagster daemon over the platform's sensors, to be killed at will."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import dagster as dg
import psutil

from cde_assets.automation.training_runs import TRAINING_JOB
from cde_assets.stack import prepare_home
from tests.assets.bank import NAME, Bank
from tests.lender import ROOT

LOCATION = "tests.stories.watched_location"
Found = TypeVar("Found")


class Watched(Bank):
    """A bank whose sensors are run by a daemon process, on an instance that the test and the daemon share."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        home = folder / "home"
        dagster = prepare_home(_Home(home))
        super().__init__(folder, dg.DagsterInstance.from_config(str(dagster)), **settings)
        self.journal = home / "trainings.txt"
        self.hold = home / "hold"
        self._log = folder / "daemon.log"
        self._environment = {f"CDE_{name.upper()}": str(value) for name, value in settings.items()}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._started: list[psutil.Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()
        self.instance.dispose()

    def start(self) -> None:
        """Start a daemon with a code server of its own."""
        environment = {
            **os.environ,
            "CDE_HOME": str(self.settings.home),
            "CDE_PORTFOLIO": NAME,
            "CDE_CLOCK_FILE": str(self.clock_file),
            "DAGSTER_HOME": str(self.settings.home / "dagster"),
            **self._environment,
        }
        command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-m", LOCATION, "-d", str(ROOT)]
        with self._log.open("ab") as log:
            self._daemon = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill_all(self) -> None:
        """End the daemon, its code server and its runs at once, as a power cut does."""
        for process in self._processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if self._daemon is not None:
            self._daemon.wait(20)
        self._daemon = None

    def _processes(self) -> list[psutil.Process]:
        if self._daemon is None or self._daemon.poll() is not None:
            return []
        parent = psutil.Process(self._daemon.pid)
        return [parent, *parent.children(recursive=True)]

    def kill_run(self, run_id: str) -> None:
        """Kill the process of a run and nothing else."""
        for record in self.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records:
            event = record.event_log_entry.dagster_event
            if event is not None and (event.message or "").startswith("Started process for run"):
                os.kill(int(str(event.engine_event_data.metadata["pid"].value)), signal.SIGKILL)
                return
        raise AssertionError("the run has no process")

    def until(self, found: Callable[[], Found], what: str, seconds: float = 120) -> Found:
        """Wait for something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if result := found():
                return result
            assert self._daemon is None or self._daemon.poll() is None, "the daemon ended\n" + self._tail()
            time.sleep(0.2)
        raise AssertionError(f"in vain: {what}\n{self._tail()}")

    def trainings(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        """The trainings that were launched."""
        return list(self.instance.get_runs(dg.RunsFilter(job_name=TRAINING_JOB, statuses=list(statuses) or None)))

    def trained(self, number: int) -> bool:
        """Whether so many trainings have ended well."""
        return len(self.trainings(dg.DagsterRunStatus.SUCCESS)) >= number

    def looks(self, sensor: str) -> int:
        """How often a sensor has looked, with success."""
        return len([tick for tick in self._ticks(sensor) if tick.status.value in ("SKIPPED", "SUCCESS")])

    def looked_again(self, sensor: str, times: int = 2) -> None:
        """Wait until a sensor has looked some times more."""
        before = self.looks(sensor)
        self.until(lambda: self.looks(sensor) >= before + times, f"{sensor} looks")

    def failed_looks(self) -> list[str]:
        """The ticks that failed, by sensor."""
        states = self.instance.all_instigator_state()
        return [
            f"{state.instigator_name}: {tick.error}"
            for state in states
            for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
            if tick.status.value == "FAILURE"
        ]

    def _ticks(self, sensor: str) -> list[Any]:
        states = [state for state in self.instance.all_instigator_state() if state.instigator_name == sensor]
        return [
            tick for state in states for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        ]

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])


class _Home:
    def __init__(self, home: Path) -> None:
        self.home = home
