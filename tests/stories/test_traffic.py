"""`cde traffic`: simulated applicants against a real service, on a clock that a file tells."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cde_assets.cli import app
from cde_assets.processes import free_port
from cde_assets.stack import SERVICE, scoring_server
from cde_serving.clock_file import read_instant, write_instant
from cde_serving.decision_log import DecisionLog
from cde_serving.settings import Settings

PORTFOLIO = "german_credit"
BEGINS = datetime(2025, 7, 1, tzinfo=UTC)
Type = Callable[..., Result]


@pytest.fixture(scope="module")
def settings(german_as_promoted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A promoted model behind a running service, which goes by a file."""
    home = shutil.copytree(german_as_promoted, tmp_path_factory.mktemp("traffic") / "home")
    write_instant(home / "clock", BEGINS)
    told = {"CDE_HOME": str(home), "CDE_PORTFOLIO": PORTFOLIO, "CDE_CLOCK_FILE": str(home / "clock")}
    told["CDE_PORT"] = str(free_port("127.0.0.1"))
    with pytest.MonkeyPatch.context() as environment:
        for name, value in told.items():
            environment.setenv(name, value)
        settings = Settings(_env_file=None)
        with scoring_server(settings, SERVICE, settings.port) as server:
            server.wait(90)
            yield settings


@pytest.fixture
def traffic(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Type:
    """Type `cde traffic ...` for that service; the clock is at the first day again."""
    assert settings.clock_file is not None
    write_instant(settings.clock_file, BEGINS)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *words: CliRunner().invoke(app, ["traffic", *words])


def recorded(settings: Settings) -> int:
    """How many decisions the log holds."""
    with closing(DecisionLog.open_existing(settings, PORTFOLIO)) as log:
        return log.count()


def told(result: Result, row: str) -> int:
    """The number in a row of the summary."""
    found = re.search(rf"{row}\D*([\d,]+)", result.output)
    return int(found[1].replace(",", "")) if found else 0


def test_months_pass_and_loans_come_to_their_end(settings: Settings, traffic: Type) -> None:
    """Every approved applicant's outcome comes back once it is known, and none of anybody else."""
    played = traffic("--rate", "12", "--days", "20", "--outcomes", "--outcomes-after", "3")

    assert 0 == played.exit_code, played.output
    assert 240 == told(played, "applications") == sum(told(played, name) for name in ("APPROVED", "REJECTED", "MANUAL"))
    returned = told(played, "outcome repaid") + told(played, "outcome defaulted")
    assert told(played, "APPROVED") == returned + told(played, "still open")
    assert min(told(played, "outcome repaid"), told(played, "outcome defaulted"), told(played, "still open")) > 0
    assert settings.clock_file is not None
    assert datetime(2025, 7, 21, tzinfo=UTC) == read_instant(settings.clock_file)


def test_a_rerun_doubles_nothing(settings: Settings, traffic: Type) -> None:
    """The same seed and days: the same requests under the same keys."""
    played = ("--rate", "30", "--days", "2", "--seed", "2", "--outcomes", "--outcomes-after", "0")
    first = traffic(*played)
    before = recorded(settings)
    assert settings.clock_file is not None
    write_instant(settings.clock_file, BEGINS)

    again = traffic(*played)

    assert (0, 0) == (first.exit_code, again.exit_code), again.output
    assert [told(first, name) for name in ("APPROVED", "REJECTED")] == [
        told(again, n) for n in ("APPROVED", "REJECTED")
    ]
    assert before == recorded(settings)
    assert told(first, "outcome repaid") > 0 == told(again, "outcome repaid")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--url", "http://127.0.0.1:9"), 1, "does not answer"),
        (("--key", "cde_000000000000_wrong"), 1, "refuses the API key"),
        (("--drift", "0.5"), 2, "fixed book, which cannot drift"),
        (("--rate", "0"), 2, "--rate"),
    ],
)
def test_what_cannot_be_played_is_told_with_the_way_out(
    settings: Settings, traffic: Type, words: tuple[str, ...], status: int, said: str
) -> None:
    """And leaves nothing behind."""
    before = recorded(settings)

    result = traffic("--rate", "5", *words)

    assert (status, True) == (result.exit_code, said in " ".join(result.output.split())), result.output
    assert before == recorded(settings)


def test_a_service_with_another_clock_is_sent_nothing(
    settings: Settings, traffic: Type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its decisions would be of another day than the traffic's."""
    write_instant(tmp_path / "clock", BEGINS.replace(year=2024))
    monkeypatch.setenv("CDE_CLOCK_FILE", str(tmp_path / "clock"))
    before = recorded(settings)

    result = traffic("--rate", "5")

    assert 1 == result.exit_code
    assert "does not follow this CDE_CLOCK_FILE" in " ".join(result.output.split())
    assert before == recorded(settings)


def test_a_service_on_a_clock_file_is_sent_no_applicants_of_today(
    settings: Settings, traffic: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CDE_CLOCK_FILE")
    before = recorded(settings)

    result = traffic("--rate", "5")

    assert 1 == result.exit_code
    assert "set the same CDE_CLOCK_FILE" in " ".join(result.output.split())
    assert before == recorded(settings)


@pytest.mark.parametrize("words", [("--days", "2"), ("--outcomes",)])
def test_without_a_clock_file_only_today_can_be_played(
    traffic: Type, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Misuse, with the way out."""
    monkeypatch.delenv("CDE_CLOCK_FILE")

    result = traffic(*words)

    assert 2 == result.exit_code
    assert "CDE_CLOCK_FILE" in result.output


def test_the_loans_of_a_seed_hold_nothing_about_a_person(settings: Settings, traffic: Type) -> None:
    """Keys, ids of decisions and what became of them."""
    traffic("--rate", "5", "--seed", "4", "--outcomes")

    lines = (settings.portfolio_home(PORTFOLIO) / "traffic" / "4.jsonl").read_text().splitlines()
    assert {"key", "decision_id", "repays", "known_on"} == {name for line in lines for name in json.loads(line)}
