"""Tests for `cde_assets.automation.refreshing`: what counts as new data, and what it leads to."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from cde_assets.automation.refreshing import data_version, new_loans_refresh
from cde_domain.portfolio import Portfolio, load_portfolio
from tests.assets.bank import NAME, Bank, training_job


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "loans.csv"
    path.write_text("first\n")
    return path


@pytest.fixture
def bank(tmp_path: Path, book: Path, instance: dg.DagsterInstance) -> Bank:
    return Bank(tmp_path, instance, source_options={"path": str(book)})


@pytest.fixture
def sensor(bank: Bank) -> dg.SensorDefinition:
    return new_loans_refresh(bank.watcher)


def replace_book(book: Path, content: str) -> None:
    """As a lender's nightly job does, with a new time of modification."""
    stat = book.stat()
    book.write_text(content)
    os.utime(book, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def asked(bank: Bank, sensor: dg.SensorDefinition, looks: int = 3) -> int:
    """How many trainings some looks lead to."""
    return sum(bank.train(bank.look(sensor).run_requests) for _ in range(looks))


def test_the_book_that_is_there_at_first_is_not_new(bank: Bank, sensor: dg.SensorDefinition):
    assert asked(bank, sensor) == 0


def test_a_new_book_has_one_challenger_trained_on_it(bank: Bank, sensor: dg.SensorDefinition, book: Path):
    asked(bank, sensor)
    replace_book(book, "second\n")
    assert asked(bank, sensor) == 1
    (run,) = bank.instance.get_runs()
    assert run.tags["cde/why"] == "new_loans"


def test_a_book_that_comes_back_is_new_again(bank: Bank, sensor: dg.SensorDefinition, book: Path):
    """Each change is an event, also one to what was there before."""
    asked(bank, sensor)
    for content in ("second\n", "first\n", "second\n"):
        replace_book(book, content)
        assert asked(bank, sensor) == 1


def test_a_book_that_is_copied_again_unchanged_is_not_new(bank: Bank, sensor: dg.SensorDefinition, book: Path):
    asked(bank, sensor)
    replace_book(book, "first\n")
    assert asked(bank, sensor) == 0


def test_a_book_that_is_still_being_copied_is_waited_for(bank: Bank, sensor: dg.SensorDefinition, book: Path):
    asked(bank, sensor)
    for content in ("sec", "secon", "second\n"):
        replace_book(book, content)
        assert asked(bank, sensor, looks=1) == 0
    assert asked(bank, sensor) == 1


def test_a_book_that_is_gone_for_a_moment_is_no_event(bank: Bank, sensor: dg.SensorDefinition, book: Path):
    asked(bank, sensor)
    book.unlink()
    assert asked(bank, sensor) == 0
    book.write_text("first\n")
    assert asked(bank, sensor) == 0


def test_new_data_waits_while_a_challenger_is_trained(bank: Bank, sensor: dg.SensorDefinition, book: Path):
    asked(bank, sensor)
    running = bank.instance.create_run_for_job(
        training_job, tags={"portfolio": NAME}, status=dg.DagsterRunStatus.STARTED
    )
    replace_book(book, "second\n")
    assert asked(bank, sensor) == 0
    bank.instance.report_run_failed(running)
    assert asked(bank, sensor) == 1


def failed_on_new_loans(bank: Bank, sensor: dg.SensorDefinition, book: Path) -> None:
    """New data, and a training on it that failed."""
    asked(bank, sensor)
    replace_book(book, "second\n")
    assert sum(bank.train(bank.look(sensor).run_requests, fails=True) for _ in range(3)) == 1


def test_new_loans_whose_training_failed_are_trained_on_after_the_cooldown(
    bank: Bank, sensor: dg.SensorDefinition, book: Path
):
    """Once and again until it succeeds, and not at each look."""
    failed_on_new_loans(bank, sensor, book)
    assert "failed; from 2026-04-01 on it is tried again" in str(bank.look(sensor).skip_reason)
    for fails in (True, False):
        bank.now += timedelta(days=bank.watcher.cooldown_days)
        assert sum(bank.train(bank.look(sensor).run_requests, fails=fails) for _ in range(3)) == 1
    bank.now += timedelta(days=10 * bank.watcher.cooldown_days)
    assert asked(bank, sensor) == 0


def test_new_loans_whose_training_failed_are_in_any_later_training(bank: Bank, sensor: dg.SensorDefinition, book: Path):
    """The weekly one, say."""
    failed_on_new_loans(bank, sensor, book)
    bank.run({"portfolio": NAME, "cde/why": "weekly", "cde/requested_at": bank.now.isoformat()})
    bank.now += timedelta(days=2 * bank.watcher.cooldown_days)
    assert asked(bank, sensor) == 0


def test_what_an_earlier_version_remembered_is_read(bank: Bank, sensor: dg.SensorDefinition, book: Path):
    """It knew no trainings; one that failed in its time is tried again, too."""
    failed_on_new_loans(bank, sensor, book)
    kept = json.loads(str(bank.cursors[sensor.name]))
    del kept["training"]
    bank.cursors[sensor.name] = json.dumps(kept)
    bank.now += timedelta(days=bank.watcher.cooldown_days)
    assert asked(bank, sensor) == 1


def test_a_challenger_that_checks_refused_is_not_trained_again_on_the_same_loans(
    bank: Bank, sensor: dg.SensorDefinition, book: Path
):
    """They would refuse it again."""

    @dg.asset(key=dg.AssetKey([NAME, "evaluation"]))
    def evaluation() -> None: ...

    @dg.asset_check(asset=evaluation, blocking=True)
    def is_better() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    asked(bank, sensor)
    replace_book(book, "second\n")
    bank.look(sensor)
    (request,) = bank.look(sensor).run_requests or ()
    job = dg.define_asset_job("train_challenger", tags=dict(request.tags))
    definitions = dg.Definitions(assets=[evaluation], asset_checks=[is_better], jobs=[job])
    run = definitions.resolve_job_def("train_challenger").execute_in_process(
        instance=bank.instance, raise_on_error=False
    )
    assert not run.success
    bank.now += timedelta(days=2 * bank.watcher.cooldown_days)

    assert asked(bank, sensor) == 0


def test_a_tick_that_is_cut_short_asks_for_the_same_run(bank: Bank, sensor: dg.SensorDefinition, book: Path):
    asked(bank, sensor)
    replace_book(book, "second\n")
    bank.look(sensor)
    keys = [
        [request.run_key for request in bank.look(sensor, keep_cursor=kept).run_requests or ()]
        for kept in (False, False, True)
    ]

    assert keys[0] == keys[1] == keys[2] != []


def test_before_the_first_promotion_no_data_is_new(tmp_path: Path, book: Path, instance: dg.DagsterInstance):
    """The first model is trained by a person; what came before it is in it."""
    bank = Bank(tmp_path, instance, champion=False, source_options={"path": str(book)})
    sensor = new_loans_refresh(bank.watcher)
    asked(bank, sensor)
    replace_book(book, "second\n")
    assert asked(bank, sensor) == 0
    bank.promote()
    assert asked(bank, sensor) == 0


def test_another_option_of_the_simulator_is_other_data():
    """personal_loan reads no file."""
    portfolio = load_portfolio("personal_loan")
    versions = {
        data_version(portfolio, options, {})[0] for options in ({}, {"rows": 30_000}, {"seed": 8}, {"drift": 0.5})
    }

    assert len(versions) == 4
    assert data_version(portfolio, {}, {})[0] == data_version(portfolio, {"rows": 20_000}, {})[0]


def test_a_source_can_tell_the_version_of_its_data_itself(tmp_path: Path, book: Path):
    """A table's newest time stamp, say."""
    plain = load_portfolio(NAME)
    stamp = ["2026-03-01"]
    telling: Portfolio = replace(
        plain, sources=(replace(plain.sources[0], version=lambda options: f"{options.path.name} {stamp[0]}"),)
    )
    first, _ = data_version(telling, {"path": str(book)}, {})
    again, _ = data_version(telling, {"path": str(book)}, {})
    stamp[0] = "2026-03-02"
    later, _ = data_version(telling, {"path": str(book)}, {})

    assert first == again != later


def test_a_file_that_looks_unchanged_is_not_read_again(book: Path):
    """Books are large, and the sensor looks twice a minute."""
    portfolio = load_portfolio(NAME)
    first, known = data_version(portfolio, {"path": str(book)}, {})
    (digested,) = known.values()
    trusted = {str(book): digested.model_copy(update={"digest": "0" * 64})}

    assert data_version(portfolio, {"path": str(book)}, trusted)[0] != first
