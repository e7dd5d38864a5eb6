"""Tests for `cde_assets.automation.schedules`, and for what is on by itself."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from cde_assets.automation.schedules import quarterly_card_review, weekly_retraining
from cde_assets.definitions import build_definitions
from cde_serving.settings import Settings
from tests.assets.bank import DIGEST, NAME, Bank, training_job

SUNDAY = datetime(2026, 3, 8, 2, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, 6, tzinfo=UTC)

SENSORS = {
    "drift_retrains",
    "performance_decay_retrains",
    "new_loans_refresh",
    "failures_alert",
    "failed_checks_alert",
    "failed_ticks_alert",
    "lost_runs_end",
    "bento_follows_champion",
}
SCHEDULES = {"weekly_retraining", "quarterly_card_review"}


@pytest.fixture
def bank(tmp_path: Path, instance_on_disk: dg.DagsterInstance) -> Bank:
    return Bank(tmp_path, instance_on_disk)


def tick(bank: Bank, schedule: dg.ScheduleDefinition, at: datetime) -> list[dg.RunRequest]:
    """What a schedule asks for at its time."""
    context = dg.build_schedule_context(instance=bank.instance, scheduled_execution_time=at)
    answer = schedule(context)
    return [answer] if isinstance(answer, dg.RunRequest) else []


def test_every_week_a_challenger_is_trained_once(bank: Bank):
    schedule = weekly_retraining(bank.watcher)
    (request,) = tick(bank, schedule, SUNDAY)
    (again,) = tick(bank, schedule, SUNDAY)

    assert request.run_key == again.run_key == "weekly:2026-03-08"
    assert request.tags["cde/why"] == "weekly"
    assert request.tags["cde/requested_at"] == SUNDAY.isoformat()


def test_no_week_trains_beside_another_training_or_before_the_first_promotion(bank: Bank, tmp_path: Path):
    empty = Bank(tmp_path / "other", bank.instance, champion=False)
    assert not tick(empty, weekly_retraining(empty.watcher), SUNDAY)
    bank.instance.create_run_for_job(training_job, tags={"portfolio": NAME}, status=dg.DagsterRunStatus.STARTED)
    assert not tick(bank, weekly_retraining(bank.watcher), SUNDAY)


def test_every_quarter_a_person_is_asked_once_to_review_the_champions_card(bank: Bank):
    """The challenger is another model, whose evidence a new card would outdate."""
    schedule = quarterly_card_review(bank.watcher)
    for _ in range(2):
        assert not tick(bank, schedule, APRIL)

    (alert,) = bank.told
    assert "2026-Q2" in alert["title"]
    assert str(bank.settings.home / NAME / "models" / DIGEST / "model_card.html") in alert["what"]
    assert alert["where"].endswith("/assets/german_credit/model_card")
    assert alert["did"].startswith("Nothing: a challenger waits")


def test_the_card_is_made_again_where_it_is_the_champions(bank: Bank):
    bank.instance.report_runless_asset_event(
        dg.AssetMaterialization(dg.AssetKey([NAME, "challenger_model"]), metadata={"model_digest": DIGEST})
    )
    (request,) = tick(bank, quarterly_card_review(bank.watcher), APRIL)

    assert request.run_key == "review:2026-Q2"
    assert "review_model_card" in bank.told[0]["did"]


@pytest.mark.parametrize("chosen", [True, False])
def test_sensors_and_schedules_run_by_themselves_for_the_chosen_portfolio_alone(tmp_path: Path, chosen: bool):
    """`make up` needs no click, and two portfolios do not train at once."""
    settings = Settings(home=tmp_path, portfolio=NAME if chosen else "lending_club", _env_file=None)
    repository = build_definitions(NAME, settings).get_repository_def()
    sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
    schedules = {schedule.name: schedule for schedule in repository.schedule_defs}

    assert sensors.keys() >= SENSORS
    assert schedules.keys() >= SCHEDULES
    assert {sensors[name].default_status.value for name in SENSORS} == {"RUNNING" if chosen else "STOPPED"}
    assert {schedules[name].default_status.value for name in SCHEDULES} == {"RUNNING" if chosen else "STOPPED"}
    assert all(sensors[name].description for name in SENSORS)
