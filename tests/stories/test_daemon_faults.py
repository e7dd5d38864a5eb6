"""What a daemon does that is killed, loses its runs or its clock: each event leads to exactly one effective run."""

import random
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from tests.assets.bank import NAME
from tests.resources.receivers import HttpReceiver, http_receiver
from tests.stories.daemon import Watched

DRIFT = "drift_report"


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as server:
        yield server


@pytest.fixture
def bank(tmp_path: Path, receiver: HttpReceiver) -> Iterator[Watched]:
    with Watched(tmp_path, alert_webhook=receiver.url) as bank:
        yield bank


def ledger(bank: Watched) -> bytes:
    """What is promoted."""
    return (bank.settings.home / NAME / "ledger.jsonl").read_bytes()


def test_a_daemon_killed_in_mid_tick_leads_to_one_training_and_one_alert(bank: Watched, receiver: HttpReceiver):
    """It dies while the drift sensor hands its alert to a receiver that hangs, before any cursor is kept."""
    bank.report(DRIFT, "psi")
    promoted = ledger(bank)
    receiver.hangs = True
    bank.start()
    bank.until(receiver.asked.is_set, "the alert is on its way")
    bank.kill_all()
    assert bank.trainings() == []
    receiver.hangs = False
    receiver.release.set()
    bank.start()
    bank.until(bank.trainings, "a training is asked for")
    bank.looked_again("drift_retrains", 1)

    assert len(bank.trainings()) == 1
    assert len({alert["id"] for alert in receiver.taken}) == len(bank.told) == 1
    assert promoted == ledger(bank)
    assert bank.failed_looks() == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_daemons_killed_at_random_and_a_jumping_clock_skip_and_double_nothing(bank: Watched):
    """Four episodes of drift, each with a power cut at another moment; the clock jumps ahead and back."""
    moments = random.Random(7)
    promoted = ledger(bank)
    for episode in range(1, 5):
        bank.report(DRIFT, "psi")
        bank.start()
        time.sleep(moments.uniform(2, 25))
        bank.kill_all()
        bank.start()
        bank.until(lambda expected=episode: bank.trained(expected), f"training {episode}")
        bank.looked_again("drift_retrains", 1)
        assert len(bank.trainings(dg.DagsterRunStatus.SUCCESS)) == episode
        bank.report(DRIFT)
        bank.looked_again("drift_retrains", 1)
        bank.now += timedelta(days=400 if episode % 2 else -300)
        bank.looked_again("drift_retrains")
        bank.now += timedelta(days=bank.watcher.cooldown_days)  # also where the clock went back
        bank.kill_all()

    episodes = [run.tags["cde/episode"] for run in bank.trainings(dg.DagsterRunStatus.SUCCESS)]
    assert len(set(episodes)) == len(episodes) == 4
    assert promoted == ledger(bank)
    assert bank.failed_looks() == []


@pytest.mark.slow
def test_a_training_killed_in_the_middle_is_started_again_and_ends_once(bank: Watched, receiver: HttpReceiver):
    """The run's process alone is killed; its code server notices within a second. People are told."""
    bank.hold.touch()
    bank.report(DRIFT, "psi")
    promoted = ledger(bank)
    bank.start()
    bank.until(bank.journal.exists, "the training began")
    (first,) = bank.trainings()
    bank.kill_run(first.run_id)
    bank.hold.unlink()
    bank.until(lambda: bank.trained(1), "the training ended")
    bank.looked_again("failures_alert")

    journal = bank.journal.read_text().split()
    assert journal.count("began") == 2
    assert journal.count("ended") == 1
    (failure,) = [alert for alert in receiver.taken if alert["key"].startswith("run_failed")]
    assert failure["where"].endswith(f"/runs/{first.run_id}")
    assert "once more by itself" in failure["did"]
    assert promoted == ledger(bank)


@pytest.mark.slow
def test_a_training_that_a_power_cut_ended_is_started_again_and_ends_once(bank: Watched):
    """Daemon, code server and run die together, so that nobody is left to notice; the next daemon does."""
    bank.hold.touch()
    bank.report(DRIFT, "psi")
    promoted = ledger(bank)
    bank.start()
    bank.until(bank.journal.exists, "the training began")
    bank.kill_all()
    (lost,) = bank.trainings()
    assert lost.status is dg.DagsterRunStatus.STARTED
    bank.hold.unlink()
    bank.start()
    bank.until(lambda: bank.trained(1), "the training ended", seconds=240)
    bank.looked_again("drift_retrains")

    assert {run.status.value for run in bank.trainings()} == {"FAILURE", "SUCCESS"}
    assert len(bank.trainings()) == 2
    assert bank.journal.read_text().split().count("ended") == 1
    assert promoted == ledger(bank)
    assert any("once more by itself" in alert["did"] for alert in bank.told)


@pytest.mark.slow
def test_alerts_reach_a_receiver_that_was_away_while_the_sensors_ran(bank: Watched, receiver: HttpReceiver):
    """No scoring service runs either: the sensors need none, and none of their looks fails."""
    receiver.status = 503
    bank.report(DRIFT, "psi")
    bank.start()
    bank.until(lambda: bank.trained(1), "one training")
    bank.looked_again("drift_retrains")
    assert receiver.taken == []
    receiver.status = 200
    bank.until(lambda: receiver.taken, "the alert arrives")
    bank.looked_again("drift_retrains")

    assert len(receiver.taken) == len(bank.told) == 1
    assert bank.failed_looks() == []
