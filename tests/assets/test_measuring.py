"""Tests for `cde_assets.measuring` and the daily jobs: rules of operation decided by what was really measured."""

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cde_assets.cli import app
from cde_assets.daily import daily_jobs
from cde_assets.definitions import build_definitions
from cde_assets.measuring import Measurement, measure
from cde_assets.operation_facts import log_facts
from cde_assets.pii_facts import canary_recall
from cde_domain.governance.verdicts import Status
from cde_domain.portfolio import load_portfolio
from cde_serving.records.database import open_reader
from cde_serving.records.verify import Verification
from cde_serving.scorer import Scorer
from cde_serving.service import open_scorer
from cde_serving.settings import Settings
from tests.serving.helpers import releases_in
from tests.support import NAME, REFERENCE, TinyLoans, write_tiny_bundle, write_tiny_loans

DECISIONS = 210


@dataclass
class Office:
    """A home in which decisions were taken, and the page of metrics of the service that took them."""

    settings: Settings
    page: str
    decisions: list[str]

    @property
    def home(self) -> Path:
        return self.settings.portfolio_home(NAME)

    @property
    def database(self) -> Path:
        return self.home / "decisions.sqlite"

    def measure(self, sample: int = 1000) -> Measurement:
        return measure(self.settings, load_portfolio(REFERENCE), sample=sample, metrics_url=None)


def status(found: Measurement, rule: str) -> Status:
    return next(result.status for result in found.rules if result.id == rule)


def value(found: Measurement, metric: str) -> Any:
    facts = [fact for measured in found.facts.values() for fact in measured]
    return next((fact.value for fact in facts if fact.metric == metric), None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLoans:
    return write_tiny_loans(tmp_path_factory.mktemp("lender"))


@pytest.fixture(scope="module")
def bundle(tiny: TinyLoans, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tiny, tmp_path_factory.mktemp("models"), seed=1)


def applications(tiny: TinyLoans) -> Iterator[bytes]:
    for number in range(DECISIONS):
        changes = {"customer_id": f"Person-{number:04}", "annual_income": 40000.56789 + number, "note": f"{number}"}
        yield json.dumps({**tiny.portfolio.example, **changes}).encode()


@pytest.fixture(scope="module")
def decided(tiny: TinyLoans, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Office:
    """A home in which 210 people were decided; the keys lie elsewhere, as in production. To be copied."""
    folder = tmp_path_factory.mktemp("decided")
    home = folder / "home"
    releases_in(home / NAME).promote(bundle)
    settings = Settings(home=home, portfolio=REFERENCE, master_key=folder / "master.key", _env_file=None)
    scorer = open_scorer(settings, folder / "no-release")

    async def decide(scorer: Scorer) -> list[bytes]:
        return await asyncio.gather(*(scorer.score(body) for body in applications(tiny)))

    decisions = [json.loads(answer)["decision_id"] for answer in asyncio.run(decide(scorer))]
    page = scorer.metrics.page().decode()
    scorer.close()
    return Office(settings, page, decisions)


@pytest.fixture
def office(decided: Office, tmp_path: Path) -> Office:
    """A copy of that home to work in."""
    home = tmp_path / "home"
    shutil.copytree(decided.settings.home, home)
    return Office(decided.settings.model_copy(update={"home": home}), decided.page, decided.decisions)


def test_a_sound_service_passes_what_was_measured_and_nothing_else(office: Office) -> None:
    found = office.measure()

    statuses = {rule.id: rule.status for rule in found.rules}
    assert Status.PASS == statuses["DEC-02"] == statuses["PRIV-02"]
    assert [] == found.failed
    assert [] == found.hits
    assert Status.INSUFFICIENT_DATA is statuses["PRIV-03"]  # nobody was erased yet
    open_rules = {rule for rule, status in statuses.items() if status is Status.NOT_YET_MEASURED}
    assert {"DEC-01", "DEC-03", "DEC-04", "DEC-05", "DATA-07", "GOV-03", "PRIV-01"} <= open_rules
    assert Status.PASS not in {statuses["DEC-01"], statuses["PRIV-01"]}


def test_answers_are_held_against_records_where_a_service_tells_how_many_it_gave(office: Office) -> None:
    """Without one, nothing is said of answers that were not recorded."""
    engine = open_reader(office.settings.log_url(NAME))
    sound = Verification((), 1, DECISIONS, 1, 0)

    def facts(page: str | None) -> dict[str, Any]:
        return {fact.metric: fact.value for fact in log_facts(engine, sound, page)}

    assert {"hash_chain_breaks": 0.0, "field_completeness": 1.0, "decisions_without_log": 0.0} == facts(office.page)
    assert "decisions_without_log" not in facts(None)
    assert 5 == facts(office.page.replace(f" {DECISIONS}.0", f" {DECISIONS + 5}.0"))["decisions_without_log"]
    engine.dispose()


def test_few_decisions_are_no_verdict(office: Office) -> None:
    found = office.measure(sample=199)

    assert Status.INSUFFICIENT_DATA is status(found, "DEC-02")


def _lost_bundle(office: Office, bundle: Path) -> None:
    """A file of the bundle is lost, so that no decision can be taken again."""
    (office.home / "bundles" / bundle.name / "model" / "trees" / "leaf_value.npy").unlink()


def _edited(office: Office, _: Path) -> None:
    with closing(sqlite3.connect(office.database)) as database, database:
        database.execute("UPDATE records SET decided_by = 'nobody' WHERE sequence = 3")


def _nonce_twice(office: Office, _: Path) -> None:
    with closing(sqlite3.connect(office.database)) as database, database:
        ((payload, customer),) = database.execute("SELECT payload, customer FROM records WHERE sequence = 1")
        values = (payload[:12] + os.urandom(20), customer)
        database.execute("UPDATE records SET payload = ?, customer = ? WHERE sequence = 2", values)


def _clear_payload(office: Office, _: Path) -> None:
    with closing(sqlite3.connect(office.database)) as database, database:
        database.execute("UPDATE records SET payload = ? WHERE sequence = 2", (b"income 4711.25 of Person-0001",))


def _leaked(office: Office, _: Path) -> None:
    """Everyone's name is in the log: which people were decided last, whom the scan looks for, is chance."""
    logs = office.settings.home / "logs"
    logs.mkdir()
    lines = [f'{{"event": "refused", "customer": "Person-{number:04}"}}\n' for number in range(DECISIONS)]
    (logs / "scoring.log").write_text("".join(lines))


BROKEN: list[tuple[Callable[[Office, Path], None], str, str]] = [
    (_edited, "DEC-01", "hash_chain_breaks"),
    (_lost_bundle, "DEC-02", "decision_mismatches"),
    (_nonce_twice, "PRIV-02", "nonce_reuse"),
    (_clear_payload, "PRIV-02", "rows_not_aead"),
    (_leaked, "PRIV-01", "pii_hits_in_logs_reports_models"),
]


@pytest.mark.parametrize(("spoil", "rule", "metric"), BROKEN, ids=[metric for _, _, metric in BROKEN])
def test_what_is_broken_fails_its_rule_and_stops_the_next_promotion(
    office: Office, bundle: Path, spoil: Callable[[Office, Path], None], rule: str, metric: str
) -> None:
    spoil(office, bundle)
    found = office.measure()

    assert rule in {failed.id for failed in found.failed}
    assert 0 < value(found, metric)


def test_a_master_key_beside_the_database_fails(office: Office) -> None:
    """Whoever copies CDE_HOME has both."""
    beside = office.settings.home / "keys" / "master.key"
    beside.write_bytes(office.settings.master_key_file().read_bytes())
    office.settings = office.settings.model_copy(update={"master_key": None})

    found = office.measure()
    assert value(found, "kek_in_same_store") is True
    assert Status.FAIL is status(found, "PRIV-02")


def test_erasures_are_drilled_on_who_was_erased(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unreadable, with a whole chain; a customer kept beyond the time fails."""
    _erase(office, monkeypatch, "Person-0001", "--now")
    assert Status.PASS is status(office.measure(), "PRIV-03")

    _erase(office, monkeypatch, "Person-0002")
    with closing(sqlite3.connect(office.database)) as database, database:
        database.execute(
            "UPDATE customer_keys SET erase_after = '2020' WHERE wrapped IS NOT NULL AND restricted_at IS NOT NULL"
        )
    found = office.measure()
    assert 1 == value(found, "records_kept_past_schedule_without_hold")
    assert Status.FAIL is status(found, "PRIV-03")


def _environment(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDE_HOME", str(office.settings.home))
    monkeypatch.setenv("CDE_PORTFOLIO", REFERENCE)
    monkeypatch.setenv("CDE_MASTER_KEY", str(office.settings.master_key_file()))
    monkeypatch.setenv("CDE_PORT", "1")  # nothing listens there


def _erase(office: Office, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    _environment(office, monkeypatch)
    result = CliRunner().invoke(app, ["erase", *words])
    assert result.exit_code == 0, result.output


def test_the_command_tells_each_rule_and_what_failed(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(office, monkeypatch)
    sound = CliRunner().invoke(app, ["measure-operation"])
    _leaked(office, Path())
    leaking = CliRunner().invoke(app, ["measure-operation"])

    assert (0, 1) == (sound.exit_code, leaking.exit_code), sound.output
    assert "DEC-02 pass: Decisions replay" in sound.output
    assert "a value of customer_id (plain) stands in logs/scoring.log" in leaking.output
    assert "next promotion is refused" in leaking.output
    assert "Person-" not in leaking.output


def test_before_the_first_promotion_there_is_nothing_to_measure(
    tiny: TinyLoans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDE_HOME", str(tmp_path))
    monkeypatch.setenv("CDE_PORTFOLIO", REFERENCE)
    result = CliRunner().invoke(app, ["measure-operation"])

    assert (1, f"Nothing was measured: nothing of {NAME} is promoted yet\n") == (result.exit_code, result.output)


def test_the_scan_would_find_what_is_planted() -> None:
    assert 1.0 == canary_recall()


class TestDailyJobs:
    """What Dagster does at night."""

    def test_shredding_runs_by_itself_for_the_chosen_portfolio_alone(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path, portfolio="german_credit", _env_file=None)
        status = {
            (name, schedule.name): schedule.default_status.value
            for name in ("german_credit", "lending_club")
            for schedule in build_definitions(name, settings).schedules or ()
            if schedule.name in ("erase_due_schedule", "operation_facts_schedule")
        }

        assert {
            ("german_credit", "erase_due_schedule"): "RUNNING",
            ("german_credit", "operation_facts_schedule"): "STOPPED",
            ("lending_club", "erase_due_schedule"): "STOPPED",
            ("lending_club", "operation_facts_schedule"): "STOPPED",
        } == status

    def test_both_do_nothing_where_nothing_was_decided(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path, portfolio="german_credit", _env_file=None)
        jobs, _ = daily_jobs(settings, load_portfolio("german_credit"), chosen=True)

        assert all(job.execute_in_process().success for job in jobs)
        assert not (tmp_path / "german_credit" / "decisions.sqlite").exists()

    def test_they_shred_what_is_due_and_measure_and_name_nobody(
        self, office: Office, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        _erase(office, monkeypatch, "Person-0002")
        with closing(sqlite3.connect(office.database)) as database, database:
            database.execute("UPDATE customer_keys SET erase_after = '2020-01-01' WHERE restricted_at IS NOT NULL")
        scores = office.home / "batch" / "scores" / "2026-03-01.parquet"
        scores.parent.mkdir(parents=True)
        pq.write_table(pa.table({"customer_id": ["Person-0002", "Person-0003"]}), scores)
        settings = office.settings.model_copy(update={"port": 1})
        jobs, _ = daily_jobs(settings, load_portfolio(REFERENCE), chosen=True)

        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            assert all(job.execute_in_process(instance=instance).success for job in jobs)
            told = "\n".join(
                str(record.event_log_entry.user_message)
                for run in instance.get_runs()
                for record in instance.get_records_for_run(run.run_id).records
            )

        assert "1 customers shredded, 1 rows dropped from tables" in told
        assert "DEC-02 pass" in told
        assert "Person-" not in told
        assert ["Person-0003"] == pq.ParquetFile(scores).read()["customer_id"].to_pylist()
