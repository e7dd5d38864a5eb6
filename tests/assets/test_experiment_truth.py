"""Tests for what is due of an experiment: told by signed logs alone, done once, whatever crashes in between."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cde_assets.experiments.moving import ATTEMPTS, MOVE_JOB, PROMOTE_JOB, due_now, experiment_automation, move
from cde_assets.experiments.truth import Due, Nothing, running, terms_of
from cde_domain.portfolio import Portfolio
from cde_resources.releases import ReleasesResource
from cde_serving.clock_file import write_instant
from cde_serving.experiments import ExperimentConflictError, ExperimentEntry, Participant
from cde_serving.settings import Settings
from tests.assets.branch import NAME
from tests.serving.helpers import EVIDENCE, NOON, Releases, releases_in
from tests.support import TinyLoans

CHAMPION, CHALLENGER = "a" * 64, "b" * 64
REPORT = dg.AssetKey([NAME, "experiment_report"])


class Desk:
    """A lender with real logs, and a Dagster instance in which a report is told by hand."""

    def __init__(self, home: Path, lending: Portfolio, reference: str) -> None:
        write_instant(home / "clock", NOON)
        self.settings = Settings(home=home, portfolio=reference, clock_file=home / "clock", _env_file=None)
        self.lending = lending
        releases_in(self.settings.portfolio_home(NAME))  # makes the keys
        self.resource = ReleasesResource.of(self.settings, NAME)
        self.releases = Releases(self.resource.store(), self.resource.signer())
        self.instance = dg.DagsterInstance.ephemeral()

    def promote(self, bundle: str) -> None:
        current = self.releases.store.ledger.current()
        self.releases.store.ledger.append(
            action="promote",
            portfolio=NAME,
            bundle=bundle,
            expected_sequence=current.sequence if current else 0,
            evidence=EVIDENCE,
            key=self.releases.key,
            by="test",
        )

    def start(self, *, compared_with: int | None = 1, name: str = "autumn") -> ExperimentEntry:
        return self.releases.store.experiments.start(
            name,
            portfolio=NAME,
            challenger=Participant(bundle=CHALLENGER, evidence=EVIDENCE),
            weight=0.05,
            by="test",
            key=self.releases.key,
            compared_with=compared_with,
        )

    def report(self, verdict: str, **more: Any) -> None:
        """What an experiment_report about the last entry says."""
        last = self.entries[-1]
        said = {"experiment": last.experiment, "entry": last.sequence, "verdict": verdict, "said": "so it is", **more}

        @dg.asset(key=REPORT)
        def experiment_report() -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata=said)

        dg.materialize([experiment_report], instance=self.instance)

    @property
    def entries(self) -> tuple[ExperimentEntry, ...]:
        return self.releases.store.experiments.entries()

    def due(self) -> Due | Nothing:
        return due_now(self.instance, self.lending, self.resource)

    def tick(self) -> dg.RunRequest | dg.SkipReason:
        """What the sensor answers."""
        automation = experiment_automation(self.settings, self.lending, chosen=True)
        definitions = dg.Definitions(
            jobs=[automation.jobs[0]], sensors=[automation.sensor], assets=[champion_model, scoring_bento]
        )
        answer = automation.sensor(
            dg.build_sensor_context(self.instance, definitions=definitions, sensor_name="experiment_ramps")
        )
        assert isinstance(answer, dg.RunRequest | dg.SkipReason)
        return answer

    def fail(self) -> dg.DagsterRun:
        """The run that the sensor asks for is under way, and is killed."""
        request = self.tick()
        assert isinstance(request, dg.RunRequest), request.skip_message
        run = self.instance.create_run_for_job(
            experiment_automation(self.settings, self.lending, chosen=True).jobs[0],
            tags=dict(request.tags),
            status=dg.DagsterRunStatus.STARTED,
        )
        assert "a run does it" in self.tick().skip_message
        self.instance.report_run_failed(run)
        return run

    def carry_out(self, request: dg.RunRequest | None = None) -> bool:
        """Run the job that moves the experiment, as the daemon would."""
        job = experiment_automation(self.settings, self.lending, chosen=True).jobs[0]
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        tags = dict(request.tags) if request else {}
        return bool(
            job.execute_in_process(instance=self.instance, run_config=quiet, tags=tags, raise_on_error=False).success
        )


@dg.asset(key=[NAME, "champion_model"])
def champion_model() -> None:
    """Stands for the asset of this name."""


@dg.asset(key=[NAME, "scoring_bento"])
def scoring_bento() -> None:
    """Stands for the asset of this name."""


@pytest.fixture
def desk(watched_loans: tuple[TinyLoans, Path], tmp_path: Path) -> Iterator[Desk]:
    """An experiment has begun: the challenger decides for one customer in twenty."""
    tiny, _ = watched_loans
    desk = Desk(tmp_path, tiny.portfolio, tiny.reference)
    desk.promote(CHAMPION)
    desk.start()
    yield desk
    desk.instance.dispose()


def weights(desk: Desk) -> list[float]:
    return [entry.weight for entry in desk.entries]


def test_a_report_that_says_ramp_is_followed_once(desk: Desk):
    """The next look finds the log ahead of the report."""
    desk.report("ramp", next_weight=0.25)

    request = desk.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.job_name == MOVE_JOB
    assert desk.carry_out(request)

    assert weights(desk) == [0.05, 0.25]
    assert desk.entries[-1].reason == "so it is"
    assert desk.entries[-1].by.startswith("dagster:")
    assert isinstance(desk.tick(), dg.SkipReason)
    assert desk.carry_out()
    assert weights(desk) == [0.05, 0.25]


def test_without_a_report_or_with_an_older_one_nothing_moves(desk: Desk):
    assert isinstance(desk.tick(), dg.SkipReason)
    desk.report("ramp", next_weight=0.25)
    desk.releases.store.experiments.change_weight(0.1, by="jane", key=desk.releases.key)

    assert "waits for a report about its weight of 10%" in str(desk.tick().skip_message)
    desk.carry_out()
    assert weights(desk) == [0.05, 0.1]


def test_a_report_that_somebody_told_dagster_of_moves_nothing(desk: Desk):
    """The UI lets anybody report a materialisation; only what a run made is a report."""
    said = {"experiment": "autumn", "entry": 1, "verdict": "ramp", "said": "trust me", "next_weight": 1.0}
    desk.instance.report_runless_asset_event(dg.AssetMaterialization(REPORT, metadata=said))

    assert isinstance(desk.tick(), dg.SkipReason)
    desk.carry_out()
    assert weights(desk) == [0.05]


def test_a_report_that_holds_moves_nothing(desk: Desk):
    desk.report("hold")

    assert desk.tick().skip_message == "autumn is held: so it is"


def test_a_breach_ends_it_and_the_champion_decides_alone(desk: Desk):
    """Also where a person has to approve what grows."""
    desk.lending = replace(desk.lending, promotion="approval_required")
    desk.report("stop")

    desk.carry_out(desk.tick())

    assert [entry.action for entry in desk.entries] == ["start", "stop"]
    assert running(desk.resource) is None
    assert isinstance(desk.due(), Nothing)


def test_where_a_person_approves_the_platform_waits_for_the_command(desk: Desk):
    desk.lending = replace(desk.lending, promotion="approval_required")
    desk.report("ramp", next_weight=0.25)
    assert "waits for a person: cde experiment weight 0.25" in desk.tick().skip_message
    desk.report("promote")
    assert "waits for a person to materialise champion_model" in desk.tick().skip_message

    desk.carry_out()
    assert weights(desk) == [0.05]


def test_who_wins_is_promoted_by_the_gate_and_by_nobody_else(desk: Desk):
    """The run is asked for the very bundle; the job that moves experiments leaves it alone."""
    desk.report("promote")

    request = desk.tick()

    assert isinstance(request, dg.RunRequest)
    assert request.job_name == PROMOTE_JOB
    assert request.run_config == {"ops": {"champion_model": {"config": {"bundle": CHALLENGER}}}}
    desk.carry_out()
    assert weights(desk) == [0.05]


def test_an_experiment_ends_once_its_challenger_is_promoted(desk: Desk):
    """Whatever the report says: the ledger is first, so that a crash in between ends the same."""
    desk.report("promote")
    desk.promote(CHALLENGER)

    desk.carry_out(desk.tick())

    assert desk.entries[-1].action == "stop"
    assert desk.entries[-1].reason == "promoted by entry 2 of the ledger"


@pytest.mark.parametrize("compared_with", [1, None])
def test_an_experiment_ends_when_its_champion_was_replaced(desk: Desk, compared_with: int | None):
    """By another promotion or a rollback: what was compared is no longer the question."""
    desk.releases.store.experiments.stop(by="test", key=desk.releases.key)
    desk.start(compared_with=compared_with, name="winter")
    write_instant(desk.settings.home / "clock", NOON + timedelta(days=1))
    desk.promote("c" * 64)

    desk.carry_out(desk.tick())

    assert desk.entries[-1].action == "stop"
    assert "decides no longer" in desk.entries[-1].reason


def test_a_run_that_is_on_its_way_is_not_asked_for_again(desk: Desk):
    """Nor is one that was killed forgotten: it is asked for anew."""
    desk.report("stop")

    run = desk.fail()
    again = desk.tick()

    assert isinstance(again, dg.RunRequest)
    assert run.run_id in str(again.run_key)
    assert weights(desk) == [0.05]


def test_an_end_is_asked_for_until_it_comes(desk: Desk):
    """A harmful challenger decides meanwhile: after three attempts a minute apart, two, four, an hour at most."""
    desk.report("stop")
    for _ in range(ATTEMPTS):
        desk.fail()

    at = NOON
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        assert f"again in {60 * pause} s" in desk.tick().skip_message
        write_instant(desk.settings.home / "clock", at + timedelta(minutes=pause, seconds=-1))
        assert "again in 1 s" in desk.tick().skip_message
        at += timedelta(minutes=pause)
        write_instant(desk.settings.home / "clock", at)
        desk.fail()

    write_instant(
        desk.settings.home / "clock", at - timedelta(days=1)
    )  # a clock that was set back is no reason to wait
    assert desk.carry_out(desk.tick())
    assert [entry.action for entry in desk.entries] == ["start", "stop"]


@pytest.mark.parametrize("verdict", ["ramp", "promote"])
def test_more_customers_are_asked_for_three_times_and_then_once_a_report(desk: Desk, verdict: str):
    """What stood in the way may be gone by the next morning."""
    desk.report(verdict, next_weight=0.25)
    for _ in range(ATTEMPTS):
        desk.fail()
    write_instant(desk.settings.home / "clock", NOON + timedelta(days=2))
    assert "failed 3 times" in desk.tick().skip_message

    desk.report(verdict, next_weight=0.25)
    desk.fail()

    assert "failed 4 times" in desk.tick().skip_message
    assert weights(desk) == [0.05]


def test_two_runs_for_the_same_report_act_once(desk: Desk):
    """Both saw it as due; the log's number lets one of them through."""
    desk.report("ramp", next_weight=0.25)
    first, second = desk.due(), desk.due()
    assert isinstance(first, Due)
    assert isinstance(second, Due)

    move(first, desk.resource, by="one")
    with pytest.raises(ExperimentConflictError):
        move(second, desk.resource, by="two")

    assert weights(desk) == [0.05, 0.25]


def test_a_damaged_log_stops_the_sensor_and_changes_nothing(desk: Desk):
    desk.report("ramp", next_weight=0.25)
    path = desk.releases.store.experiments.path
    path.write_bytes(path.read_bytes().replace(b"0.05", b"0.06"))
    before = path.read_bytes()

    with pytest.raises(Exception, match="signature"):
        desk.tick()

    assert not desk.carry_out()
    assert path.read_bytes() == before


def test_what_an_experiment_is_compared_with_is_signed_and_kept(desk: Desk):
    """The same entry of the ledger through all its lines; a line that names another is refused."""
    desk.releases.store.experiments.change_weight(0.5, by="jane", key=desk.releases.key)
    lines = desk.releases.store.experiments.path.read_text().splitlines()
    of = terms_of(desk.entries, desk.releases.store.ledger.entries())

    assert [json.loads(line)["compared_with"] for line in lines] == [1, 1]
    assert of is not None
    assert (of.champion, of.challenger, of.entry, [step.weight for step in of.steps]) == (
        CHAMPION,
        CHALLENGER,
        2,
        [0.05, 0.5],
    )
