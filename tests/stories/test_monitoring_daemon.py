"""A real daemon over the real definitions: every day is recorded once, whatever is killed while it is."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from cde_assets.decisions.monitoring import FOLLOW_JOB, MONITOR_JOB
from cde_assets.stack import prepare_home
from tests.assets.branch import Branch, write_watched_loans
from tests.lender import ROOT

DAYS = ("2026-03-02", "2026-03-03", "2026-03-04", "2026-03-05")


class Office(Branch):
    """A branch whose days a daemon process records, on an instance that it shares with the test."""

    daemon: subprocess.Popen[bytes] | None = None
    lender: Path

    def open(self, lender: Path) -> None:
        """Use an instance on disk."""
        self.lender = lender
        self.instance = dg.DagsterInstance.from_config(str(prepare_home(self.settings)))

    def start(self) -> None:
        """Start a daemon."""
        environment = {
            **os.environ,
            "CDE_HOME": str(self.settings.home),
            "CDE_PORTFOLIO": self.settings.portfolio,
            "CDE_CLOCK_FILE": str(self.clock_file),
            "DAGSTER_HOME": str(self.settings.home / "dagster"),
            "PYTHONPATH": f"{ROOT}:{self.lender}",
        }
        command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-m", "cde_assets.definitions"]
        with (self.settings.home / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [*command, "-a", "defs"], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End the daemon, its code server and its runs at once, as a power cut does."""
        if self.daemon is None:
            return
        process = psutil.Process(self.daemon.pid)
        for one in [process, *process.children(recursive=True)]:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        self.daemon.wait(20)
        self.daemon = None

    def until(self, holds: Callable[[], object], what: str, seconds: float = 180) -> None:
        """Wait for something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if holds():
                return
            time.sleep(0.2)
        log = (self.settings.home / "daemon.log").read_text(encoding="utf-8", errors="replace")
        raise AssertionError(f"in vain: {what}\n{log[-4000:]}")

    def runs(self, job: str, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        """The runs of a job."""
        return list(self.instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(statuses) or None)))

    def looked(self, sensor: str) -> int:
        """How often a sensor looked and asked for nothing."""
        return sum(
            tick.status.value == "SKIPPED"
            for state in self.instance.all_instigator_state()
            if state.instigator_name == sensor
            for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        )


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    tiny, bundle = write_watched_loans(tmp_path)
    with Office(tmp_path / "home", tiny, bundle, f"{DAYS[0]}T09:00") as office:
        office.open(tiny.folder)
        try:
            yield office
        finally:
            office.kill()
            sys.path.remove(str(tiny.folder))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_days_and_late_outcomes_are_recorded_once_by_daemons_that_are_killed_at_random(office: Office):
    moments = random.Random(11)
    decided = {}
    for day in DAYS:
        office.set_clock(f"{day}T09:00")
        decided[day] = [
            office.score(f"{day}-{number}", annual_income=120_000.0, loan_amount=9_000.0)["decision_id"]
            for number in range(20)
        ]
    office.set_clock("2026-03-06T00:20")
    for _ in range(3):
        office.start()
        time.sleep(moments.uniform(4, 20))
        office.kill()
    office.start()
    succeeded = dg.DagsterRunStatus.SUCCESS
    office.until(lambda: office.runs(MONITOR_JOB, succeeded), "the days are recorded")
    before = office.looked("daily_monitoring_by_clock")
    office.until(lambda: office.looked("daily_monitoring_by_clock") >= before + 3, "nothing more is asked for")

    assert 1 == len(office.runs(MONITOR_JOB, succeeded))
    for day in DAYS:
        assert decided[day] == office.decisions(day)["decision_id"].tolist()

    office.set_clock("2026-03-20T09:00")  # two weeks ahead: caught up in one run
    office.until(lambda: len(office.runs(MONITOR_JOB, succeeded)) == 2, "the missed days are recorded")
    office.tell(decided[DAYS[1]][0], "repaid", "2026-03-19")
    office.until(lambda: office.runs(FOLLOW_JOB, succeeded), "the outcome is taken in")

    assert [(decided[DAYS[1]][0], "repaid")] == [
        (row["decision_id"], row["outcome"]) for row in office.outcomes(DAYS[1])
    ]
    (followed,) = office.runs(FOLLOW_JOB)
    assert {DAYS[1]} == {followed.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end")}
    office.set_clock("2026-03-10T09:00")  # back
    before = office.looked("daily_monitoring_by_clock")
    office.until(lambda: office.looked("daily_monitoring_by_clock") >= before + 3, "nothing is asked for twice")
    assert (2, 1) == (len(office.runs(MONITOR_JOB, succeeded)), len(office.runs(FOLLOW_JOB)))
