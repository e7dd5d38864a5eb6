"""Tests for `cde verify-log`, `cde replay` and `cde erase`: what an officer types, and the exit status."""

import asyncio
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cde_assets.cli import app
from cde_serving.service import open_scorer
from cde_serving.settings import Settings
from tests.serving.helpers import releases_in
from tests.support import NAME, REFERENCE, TinyLoans


@dataclass
class Office:
    """A home in which two applications of one customer were decided, and the service has stopped."""

    home: Path
    decisions: list[str]

    @property
    def database(self) -> Path:
        return self.home / NAME / "decisions.sqlite"

    def type(self, *words: str) -> Result:
        """Type a `cde` command."""
        return CliRunner().invoke(app, list(words))


@pytest.fixture
def office(tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    home = tmp_path / "home"
    releases_in(home / NAME).promote(bundles[0])
    monkeypatch.setenv("CDE_HOME", str(home))
    monkeypatch.setenv("CDE_PORTFOLIO", REFERENCE)
    scorer = open_scorer(Settings(_env_file=None), tmp_path / "no-release")
    body = json.dumps(dict(tiny.portfolio.example)).encode()
    decisions = [json.loads(asyncio.run(scorer.score(body)))["decision_id"] for _ in range(2)]
    scorer.close()
    return Office(home, decisions)


def test_an_untouched_log_is_verified(office: Office) -> None:
    """Exit status 0, and how much was looked at."""
    result = office.type("verify-log")

    assert (0, "verified") == (result.exit_code, result.output.splitlines()[-1])
    assert "2 records in 1 chains" in result.output


def test_a_changed_log_is_not_verified(office: Office) -> None:
    """Exit status 1, and where."""
    with sqlite3.connect(office.database) as database:
        database.execute("UPDATE records SET decision = 'REJECTED' WHERE sequence = 2")

    result = office.type("verify-log")

    assert 1 == result.exit_code
    assert f"record 2 ({office.decisions[1]}) was changed" in result.output


def test_without_the_master_key_the_customers_keys_are_not_checked(office: Office) -> None:
    """An auditor who may read no personal data verifies the chains, and is told what that leaves open."""
    (office.home / "keys" / "master.key").unlink()

    result = office.type("verify-log")

    assert 0 == result.exit_code
    assert "Whether the customers' keys are whole was not checked" in result.output


def test_a_damaged_customer_key_is_not_verified(office: Office) -> None:
    """Exit status 1: its decisions cannot be read any more."""
    with sqlite3.connect(office.database) as database:
        database.execute("UPDATE customer_keys SET wrapped = zeroblob(60)")

    result = office.type("verify-log")

    assert 1 == result.exit_code
    assert "key 1 was changed: it cannot be unwrapped" in result.output


def test_a_log_is_verified_with_a_copy_of_the_checkpoints(office: Office, tmp_path: Path) -> None:
    """A witness elsewhere knows more than the files beside the database."""
    checkpoints = office.home / NAME / "checkpoints.jsonl"
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(checkpoints.read_bytes())
    checkpoints.unlink()

    assert 1 == office.type("verify-log").exit_code
    assert 0 == office.type("verify-log", "--checkpoints", str(copy)).exit_code


def test_decisions_are_replayed(office: Office) -> None:
    """One by its id, or all."""
    one, everything = office.type("replay", office.decisions[0]), office.type("replay", "--all")

    assert (0, 0) == (one.exit_code, everything.exit_code)
    assert "identical (from request and features)" in one.output
    assert "2 decisions replayed: 2 identical" in everything.output


def test_an_unknown_decision_is_not_replayed(office: Office) -> None:
    """Exit status 1 for what is not there, 2 for misuse."""
    assert 1 == office.type("replay", "0" * 32).exit_code
    assert 2 == office.type("replay").exit_code
    assert 2 == office.type("replay", "--all", "0" * 32).exit_code


def test_a_customer_is_erased_now(office: Office) -> None:
    """Replay then says erased, and the log still verifies."""
    result = office.type("erase", "customer-1", "--now")

    assert 0 == result.exit_code
    assert "Erased" in result.output
    assert "2 erased" in office.type("replay", "--all").output
    assert 0 == office.type("verify-log").exit_code


def test_a_customer_is_restricted_until_the_law_allows(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The officer is told until when; what is due is shredded later."""
    first = office.type("erase", "customer-1")
    kept = office.type("erase", "--due")
    monkeypatch.setenv("CDE_RETENTION_DAYS", "0")

    assert "Restricted at once; the law keeps the decisions until 20" in first.output
    assert "data of 0 customers" in kept.output
    assert "Erased" in office.type("erase", "customer-1", "--now").output


def test_an_unknown_customer_is_not_erased(office: Office) -> None:
    """Exit status 1, so that a mistyped id is noticed; 2 without any."""
    assert 1 == office.type("erase", "customer-l").exit_code
    assert 2 == office.type("erase").exit_code


@pytest.mark.parametrize("command", [["verify-log"], ["replay", "--all"], ["erase", "customer-1"]])
def test_without_a_log_nothing_is_made_up(
    tiny: TinyLoans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Exit status 1, and no database or key appears."""
    monkeypatch.setenv("CDE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("CDE_PORTFOLIO", REFERENCE)

    result = CliRunner().invoke(app, command)

    assert 1 == result.exit_code
    assert not list((tmp_path / "empty").rglob("*.sqlite")) + list((tmp_path / "empty").rglob("*.key"))
