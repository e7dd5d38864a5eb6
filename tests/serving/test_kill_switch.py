"""Tests for `cde stop-auto` and `cde resume-auto`: nothing is decided automatically while they say so."""

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from cde_assets.cli import app
from cde_serving.kill_switch import KillSwitch, SwitchState, read_switch, turn
from cde_serving.records.database import open_reader
from cde_serving.records.record import Event, Kind
from cde_serving.records.replay import Replayer
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey
from tests.serving.helpers import NOON, SCORE, open_log, wait_for
from tests.serving.test_log_faults import Desk, running
from tests.support import NAME, REFERENCE, TinyLoans

STOPPED = ("MANUAL_REVIEW", ["AUTOMATIC_DECISIONS_STOPPED"])


@pytest.fixture
def desk(
    tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    with running(tiny, bundles[0], tmp_path) as desk:
        monkeypatch.setenv("CDE_HOME", str(desk.home))
        monkeypatch.setenv("CDE_PORTFOLIO", REFERENCE)
        yield desk


def cde(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def decided(desk: Desk) -> tuple[str, list[str]]:
    answer = desk.probe.post(SCORE, json=desk.example).json()
    assert answer["score"] is not None
    assert answer["explanation"]["contributions"]
    return answer["decision"], answer["reason_codes"]


def told(desk: Desk) -> tuple[str, bool]:
    """What `/ready` and `/metrics` say."""
    metric = "cde_automatic_decisions_stopped 1.0" in desk.probe.get("/metrics").text
    return desk.probe.get("/ready").json()["automatic_decisions"], metric


def test_a_stop_holds_within_two_seconds_and_over_a_restart_until_it_is_ended(desk: Desk) -> None:
    """On a running process under load, without a restart; every decision of the time replays and the log verifies."""
    desk.start()
    assert ("APPROVED", []) == decided(desk)
    clients = desk.load(seconds=1.2)

    assert 0 == cde("stop-auto", "--reason", "approvals doubled overnight")[0]
    stopping = wait_for(lambda: decided(desk) == STOPPED, 2)

    assert ("stopped", True) == told(desk)
    for client in clients:
        client.join()
    assert {} == desk.history.refused
    desk.kill()
    desk.start()
    assert STOPPED == decided(desk)  # from the first answer on
    state = read_switch(open_reader(desk.url), NAME)
    assert (True, "approvals doubled overnight") == (state.stopped, state.reason)
    assert str(state.by).startswith("os-user:")

    assert 0 == cde("resume-auto")[0]
    wait_for(lambda: decided(desk) == ("APPROVED", []), 2)

    assert ("on", False) == told(desk)
    desk.kill()
    store = RecordStore(open_reader(desk.url), MasterKey.open(desk.home / "keys" / "master.key", create=False))
    replayed = list(Replayer(store, desk.home / NAME / "bundles").replay_all())
    assert {("identical", True)} == {(again.outcome, again.from_request) for again in replayed}
    assert () == desk.verify().problems
    print(f"stopped within {stopping:.1f} s, {len(replayed)} decisions replayed")


def test_there_is_nothing_to_stop_without_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: TinyLoans
) -> None:
    """A mistyped CDE_HOME is told, where "stopped" would be believed."""
    monkeypatch.setenv("CDE_HOME", str(tmp_path / "hmoe"))
    monkeypatch.setenv("CDE_PORTFOLIO", REFERENCE)

    status, said = cde("stop-auto")

    assert 1 == status
    assert "Not stopped: there is no decision log" in said
    assert not list((tmp_path / "hmoe").rglob("*.sqlite"))


class Switch:
    """The switch of a log, and the clock of whoever turns it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.now = NOON
        self.log = open_log(folder, url, clock=lambda: self.now)

    @property
    def state(self) -> SwitchState:
        return read_switch(self.log.read_engine, NAME)

    def turn(self, kind: Literal["stop_auto", "resume_auto"], hours_ahead: int = 0) -> bool:
        """Turn it by such a clock; whether automatic decisions are stopped then."""
        self.now = NOON + timedelta(hours=hours_ahead)
        asyncio.run(turn(self.log, NAME, kind, by="person:officer", clock=lambda: self.now))
        return self.state.stopped

    def note(self, kind: Kind, hours_ahead: int, follows: str | None = None) -> None:
        """Record an event that follows another one than the last."""
        self.now = NOON + timedelta(hours=hours_ahead)
        event = Event.of(kind, self.now, portfolio=NAME, by="person:officer", follows=follows)
        asyncio.run(self.log.note(event))


@pytest.fixture
def switch(tmp_path: Path, log_url: str) -> Iterator[Switch]:
    switch = Switch(tmp_path, log_url)
    yield switch
    switch.log.close()


def test_a_stop_holds_against_resumptions_of_a_clock_that_is_ahead(switch: Switch) -> None:
    """Whoever presses the switch is not asked whose clock is right, however often it was pressed before."""
    for _ in range(12):
        assert switch.turn("stop_auto", hours_ahead=1)
        assert not switch.turn("resume_auto", hours_ahead=1)

    assert switch.turn("stop_auto")
    assert switch.turn("stop_auto")
    assert not switch.turn("resume_auto")
    assert switch.turn("stop_auto")


def test_a_stop_holds_against_all_who_resumed_at_the_same_moment(switch: Switch) -> None:
    """The one that lost does not come back once the other was followed."""
    switch.turn("stop_auto")
    stop = switch.state.event
    switch.note("resume_auto", 1, follows=stop)
    switch.note("resume_auto", 2, follows=stop)

    assert not switch.state.stopped
    assert switch.turn("stop_auto")


def test_events_of_earlier_versions_count_by_their_time_until_one_follows(switch: Switch) -> None:
    for hours, kind in enumerate(("resume_auto", "stop_auto", "stop_auto")):
        switch.note(kind, hours)

    assert switch.state.stopped
    assert not switch.turn("resume_auto")


def test_events_that_only_follow_each_other_stop(switch: Switch) -> None:
    """Somebody edited the database."""
    switch.turn("resume_auto")
    with switch.log.read_engine.begin() as connection:
        connection.execute(sa.text("UPDATE records SET about = record_id"))

    assert switch.state.stopped


def test_a_switch_that_cannot_be_read_stops_after_two_seconds() -> None:
    """In doubt a person decides; once it can be read again, it says what holds."""
    broken = False

    def read() -> SwitchState:
        if broken:
            raise ConnectionError
        return SwitchState()

    switch = KillSwitch(sa.create_engine("sqlite://"), NAME, read)
    assert not switch.stopped
    broken = True
    time.sleep(1.2)
    assert not switch.stopped  # a hiccup stops nobody

    wait_for(lambda: switch.stopped, 3)

    assert "ConnectionError" == switch.problem
    broken = False
    wait_for(lambda: not switch.stopped, 2)
    switch.close()
