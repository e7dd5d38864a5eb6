"""Tests for `cde_assets.automation.retraining`: what a report leads to."""

import json
import tempfile
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cde_assets.automation.retraining import drift_retrains, performance_decay_retrains
from tests.assets.bank import NAME, Bank, training_job

DRIFT = "drift_report"


@pytest.fixture
def sensor(bank: Bank) -> dg.SensorDefinition:
    return drift_retrains(bank.watcher)


def cooldown(bank: Bank) -> timedelta:
    return timedelta(days=bank.watcher.cooldown_days)


def test_no_report_and_no_alarm_ask_for_nothing(bank: Bank, sensor: dg.SensorDefinition):
    assert not bank.look(sensor).run_requests
    bank.report(DRIFT)
    assert not bank.look(sensor).run_requests
    assert bank.told == []


def test_drift_has_a_challenger_trained_once_and_people_told_what_was_done(bank: Bank, sensor: dg.SensorDefinition):
    bank.report(DRIFT, "psi")
    (request,) = bank.look(sensor).run_requests or ()

    assert request.job_name == "train_challenger"
    assert request.tags["portfolio"] == NAME
    assert request.tags["cde/why"] == "drift"
    (alert,) = bank.told
    assert "psi is out of bounds." in alert["what"]
    assert "2026-03-03 on 1,234 decisions" in alert["what"]
    assert alert["where"] == "http://127.0.0.1:3000/assets/german_credit/drift_report"
    assert alert["did"].startswith("Asked for a challenger")


def test_an_episode_that_goes_on_is_one_event_however_often_it_is_reported(bank: Bank, sensor: dg.SensorDefinition):
    """Also when it goes on for longer than the cooldown."""
    trained = 0
    for _ in range(8):
        bank.report(DRIFT, "psi", days=10)
        trained += bank.train(bank.look(sensor).run_requests)
        bank.look(sensor)

    assert trained == 1
    assert len(bank.told) == 1


def test_drift_that_ends_and_comes_back_after_the_cooldown_is_another_event(bank: Bank, sensor: dg.SensorDefinition):
    for _ in range(2):
        bank.report(DRIFT, "psi")
        assert bank.train(bank.look(sensor).run_requests) == 1
        bank.report(DRIFT, days=bank.watcher.cooldown_days + 1)
        assert not bank.look(sensor).run_requests


def test_drift_within_the_cooldown_waits_and_is_answered_if_it_still_stands(bank: Bank, sensor: dg.SensorDefinition):
    bank.report(DRIFT, "psi")
    bank.train(bank.look(sensor).run_requests)
    bank.report(DRIFT)
    bank.look(sensor)
    bank.report(DRIFT, "psi")
    waiting = bank.look(sensor)
    assert not waiting.run_requests
    assert "From 2026-04-02 on a challenger is trained" in bank.told[-1]["did"]
    bank.now += cooldown(bank)
    assert bank.train(bank.look(sensor).run_requests) == 1
    assert bank.told[-1]["did"].startswith("Asked for a challenger")


def test_drift_within_the_cooldown_that_is_over_before_its_end_is_not_answered(bank: Bank, sensor: dg.SensorDefinition):
    bank.report(DRIFT, "psi")
    bank.train(bank.look(sensor).run_requests)
    for alarms in ((), ("psi",), ()):
        bank.report(DRIFT, *alarms)
        bank.look(sensor)
    bank.now += 2 * cooldown(bank)

    assert not bank.look(sensor).run_requests


def test_a_training_for_another_reason_counts_for_the_cooldown(bank: Bank, sensor: dg.SensorDefinition):
    """The weekly one, say."""
    bank.run({"portfolio": NAME, "cde/why": "weekly", "cde/requested_at": bank.now.isoformat()})
    bank.report(DRIFT, "psi")

    assert not bank.look(sensor).run_requests
    assert "Nothing yet" in bank.told[-1]["did"]


def test_a_training_of_another_portfolio_does_not(bank: Bank, sensor: dg.SensorDefinition):
    bank.run({"portfolio": "lending_club", "cde/requested_at": bank.now.isoformat()})
    bank.report(DRIFT, "psi")

    assert bank.look(sensor).run_requests


def test_no_second_training_is_asked_for_while_one_runs(bank: Bank, sensor: dg.SensorDefinition):
    bank.instance.create_run_for_job(training_job, tags={"portfolio": NAME}, status=dg.DagsterRunStatus.STARTED)
    bank.report(DRIFT, "psi")

    assert not bank.look(sensor).run_requests
    assert "being trained already" in bank.told[-1]["did"]


def test_a_training_that_failed_answered_nothing(bank: Bank, sensor: dg.SensorDefinition):
    """It is asked for again after the cooldown, as long as the drift stands."""
    bank.report(DRIFT, "psi")
    assert bank.train(bank.look(sensor).run_requests, fails=True) == 1
    bank.report(DRIFT, "psi")
    assert not bank.look(sensor).run_requests
    bank.now += cooldown(bank)
    assert bank.train(bank.look(sensor).run_requests) == 1
    bank.now += 2 * cooldown(bank)
    assert not bank.look(sensor).run_requests


def test_an_alarm_that_no_training_mends_is_told_and_trains_nothing(bank: Bank, sensor: dg.SensorDefinition):
    bank.report(DRIFT, "approval_rate", retrains=False)

    assert not bank.look(sensor).run_requests
    assert "a person has to decide" in bank.told[-1]["did"]


def test_another_kind_of_alarm_in_the_same_episode_is_told_and_trains_nothing_more(
    bank: Bank, sensor: dg.SensorDefinition
):
    bank.report(DRIFT, "psi")
    bank.train(bank.look(sensor).run_requests)
    bank.report(DRIFT, "psi", "score_psi")
    assert not bank.look(sensor).run_requests
    assert len(bank.told) == 2
    assert "asked for before" in bank.told[-1]["did"]


def test_a_report_on_too_few_decisions_neither_begins_nor_ends_an_episode(bank: Bank, sensor: dg.SensorDefinition):
    bank.report(DRIFT, judged=False)
    assert not bank.look(sensor).run_requests
    bank.report(DRIFT, "psi")
    assert bank.train(bank.look(sensor).run_requests) == 1
    bank.report(DRIFT, judged=False, days=100)
    bank.report(DRIFT, "psi")
    assert not bank.look(sensor).run_requests


def test_an_episode_that_came_and_went_while_nobody_looked_is_told(bank: Bank, sensor: dg.SensorDefinition):
    """The daemon was down; nothing is trained for what is over."""
    bank.report(DRIFT, "psi")
    bank.report(DRIFT)

    assert not bank.look(sensor).run_requests
    (alert,) = bank.told
    assert alert["did"] == "Nothing: a later report no longer says so."


def test_without_a_champion_nothing_is_trained(tmp_path: Path, instance: dg.DagsterInstance):
    bank = Bank(tmp_path, instance, champion=False)
    bank.report(DRIFT, "psi")

    assert not bank.look(drift_retrains(bank.watcher)).run_requests
    assert "no model is promoted" in bank.told[-1]["did"]


def test_a_tick_that_is_cut_short_asks_for_the_same_run_again_and_tells_nobody_twice(
    bank: Bank, sensor: dg.SensorDefinition
):
    """Its cursor was not kept; the run key says that it is the same run."""
    bank.report(DRIFT, "psi")
    first = bank.look(sensor, keep_cursor=False)
    second = bank.look(sensor)

    assert [request.run_key for request in first.run_requests or ()] == [
        request.run_key for request in second.run_requests or ()
    ]
    assert len(bank.told) == 1


def test_a_clock_that_jumps_back_delays_the_next_training_by_one_cooldown_at_most(
    bank: Bank, sensor: dg.SensorDefinition
):
    bank.now += timedelta(days=365)
    bank.report(DRIFT, "psi")
    bank.train(bank.look(sensor).run_requests)
    bank.now -= timedelta(days=365)
    bank.report(DRIFT)
    bank.look(sensor)
    bank.report(DRIFT, "psi")
    assert not bank.look(sensor).run_requests
    bank.now += cooldown(bank)

    assert bank.train(bank.look(sensor).run_requests) == 1


def test_a_clock_that_jumps_ahead_trains_nothing_twice(bank: Bank, sensor: dg.SensorDefinition):
    bank.report(DRIFT, "psi")
    assert bank.train(bank.look(sensor).run_requests) == 1
    bank.now += timedelta(days=3650)

    assert bank.train(bank.look(sensor).run_requests) == 0


def test_estimated_and_live_decay_in_one_look_are_one_training(bank: Bank):
    sensor = performance_decay_retrains(bank.watcher)
    bank.report("estimated_performance", "auc")
    bank.report("live_performance", "accuracy")

    (request,) = bank.look(sensor).run_requests or ()
    assert request.tags["cde/why"] == "decay"
    assert {alert["title"] for alert in bank.told} == {
        "Estimated performance raises an alarm",
        "Live performance raises an alarm",
    }
    bank.train([request])
    assert not bank.look(sensor).run_requests


FIRST_BUNDLE, NEXT_BUNDLE = "a" * 64, "d" * 64


def test_decay_of_the_next_champion_is_told_and_trained_for_after_the_cooldown(bank: Bank):
    """The reports between the two champions are on too few outcomes to judge, and so end no alarm themselves."""
    sensor = performance_decay_retrains(bank.watcher)
    bank.report("live_performance", "auc", bundle=FIRST_BUNDLE)
    assert bank.train(bank.look(sensor).run_requests) == 1
    bank.promote(NEXT_BUNDLE)
    bank.report("live_performance", judged=False, bundle=NEXT_BUNDLE)
    assert not bank.look(sensor).run_requests

    bank.report("live_performance", "auc", bundle=NEXT_BUNDLE)
    assert not bank.look(sensor).run_requests
    assert "From 2026-04-02 on" in bank.told[-1]["did"]
    bank.now += cooldown(bank)
    assert bank.train(bank.look(sensor).run_requests) == 1
    assert len(bank.told) == 3
    for _ in range(3):
        bank.report("live_performance", "auc", bundle=NEXT_BUNDLE, days=20)
        assert not bank.look(sensor).run_requests
    assert len(bank.told) == 3


def test_an_alarm_about_a_model_that_decides_no_more_trains_nothing(bank: Bank, sensor: dg.SensorDefinition):
    """It waited for the cooldown; what is promoted meanwhile has yet to be judged."""
    bank.run({"portfolio": NAME, "cde/why": "weekly", "cde/requested_at": bank.now.isoformat()})
    bank.report(DRIFT, "psi", bundle=FIRST_BUNDLE)
    bank.look(sensor)
    bank.promote(NEXT_BUNDLE)
    bank.now += cooldown(bank)

    assert not bank.look(sensor).run_requests


def test_an_alarm_of_the_champion_before_that_nobody_looked_at_is_told_as_such(bank: Bank, sensor: dg.SensorDefinition):
    bank.report(DRIFT, "psi", bundle=FIRST_BUNDLE)
    bank.promote(NEXT_BUNDLE)
    bank.report(DRIFT, "psi", bundle=NEXT_BUNDLE)
    assert bank.train(bank.look(sensor).run_requests) == 1

    before, now = bank.told
    assert "another model was promoted since" in before["did"]
    assert now["did"].startswith("Asked for a challenger")


def test_different_alarms_of_two_reports_that_are_read_in_one_look_are_both_told(
    bank: Bank, sensor: dg.SensorDefinition
):
    """The daemon was down for a day; each alarm with what was done about it."""
    bank.report(DRIFT, "adverse_impact_sex", retrains=False)
    bank.report(DRIFT, "drift_income")
    assert bank.train(bank.look(sensor).run_requests) == 1

    group, income = bank.told
    assert "adverse_impact_sex" in group["what"]
    assert group["did"] == "Nothing: a later report no longer says so."
    assert "drift_income" in income["what"]
    assert income["did"].startswith("Asked for a challenger")


def test_an_alarm_that_is_back_after_a_week_without_it_is_told_though_another_stands(
    bank: Bank, sensor: dg.SensorDefinition
):
    """One that flickers from day to day is told once."""
    for days, *kinds in ((1, "sex"), (1,), (1, "sex"), (1,), (8,), (1, "sex")):
        bank.report(DRIFT, "approval_rate", *kinds, retrains=False, days=days)
        bank.look(sensor)

    assert ["sex" in alert["what"] for alert in bank.told] == [True, True]


def test_a_report_made_by_hand_about_an_old_day_neither_trains_nor_ends_an_episode(
    bank: Bank, sensor: dg.SensorDefinition
):
    bank.report(DRIFT)
    bank.report(DRIFT, "psi", as_of="2025-06-01")
    assert not bank.look(sensor).run_requests
    assert bank.told == []
    bank.report(DRIFT, "psi")
    assert bank.train(bank.look(sensor).run_requests) == 1
    bank.report(DRIFT, as_of="2025-06-01")
    bank.report(DRIFT, "psi", days=100)
    assert not bank.look(sensor).run_requests
    assert len(bank.told) == 1


def test_what_an_earlier_version_remembered_is_read(bank: Bank, sensor: dg.SensorDefinition):
    """It knew of neither champion nor day; the alarm that it had told and trained for goes on."""
    watch = {"seen": 0, "began": 1, "asked": 1, "told": ["psi"]}
    bank.cursors[sensor.name] = json.dumps({"watches": {DRIFT: watch}, "training": {"run": None, "at": None}})
    bank.report(DRIFT, "psi", bundle=FIRST_BUNDLE)

    assert not bank.look(sensor).run_requests
    assert bank.told == []


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["drift", "calm", "too few", "nothing"]),
        st.floats(-20, 60),  # days that the clock moves
        st.booleans(),  # whether the tick's cursor is kept
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_whatever_happens_an_episode_has_one_training_at_most_and_cooldowns_hold(
    events: list[tuple[str, float, bool]],
):
    """Jumps of the clock and ticks that are cut short among them."""
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        bank = Bank(Path(folder), instance)
        sensor = drift_retrains(bank.watcher)
        drifts, episodes, trainings = False, 0, 0
        for what, days, kept in events:
            bank.now += timedelta(days=days)
            if what != "nothing":
                bank.report(DRIFT, *(["psi"] if what == "drift" else []), judged=what != "too few", days=0)
            if what == "drift" and not drifts:
                episodes += 1
            if what in ("drift", "calm"):
                drifts = what == "drift"
            result = bank.look(sensor, keep_cursor=kept)
            if kept:
                trainings += bank.train(result.run_requests)
        for _ in range(2):
            trainings += bank.train(bank.look(sensor).run_requests)
            bank.now += timedelta(days=1000)

        assert trainings <= episodes
        assert trainings >= min(episodes, 1) * drifts
