"""Tests for the clock that a file tells, and for everything that goes by it."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cde_assets.cli import app
from cde_domain.clock import utc_now
from cde_resources.releases import ReleasesResource
from cde_serving.app import create_app
from cde_serving.clock_file import ClockFile, ClockFileError, read_instant, write_instant
from cde_serving.scorer import Scorer
from cde_serving.service import open_scorer
from cde_serving.settings import Settings
from tests.serving.helpers import NOON, SCORE, AppClient, bearer, issue_key, releases_in, wait_for
from tests.support import NAME, REFERENCE, TinyLoans

YEAR = timedelta(days=365)


@pytest.fixture
def clock_file(tmp_path: Path) -> Path:
    """A file that tells noon of a day of long ago."""
    write_instant(tmp_path / "clock", NOON)
    return tmp_path / "clock"


@pytest.fixture
def settings(tmp_path: Path, clock_file: Path) -> Settings:
    """A home that goes by the file."""
    return Settings(home=tmp_path / "home", portfolio=REFERENCE, clock_file=clock_file, _env_file=None)


@pytest.fixture
def scorer(
    tiny: TinyLoans, bundles: tuple[Path, Path], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scorer]:
    """What a service of that home holds, with a model promoted."""
    monkeypatch.syspath_prepend(str(tiny.folder))
    releases_in(settings.portfolio_home(NAME)).promote(bundles[0])
    scorer = open_scorer(settings, settings.home / "no-release")
    yield scorer
    scorer.close()


def client_of(scorer: Scorer) -> AppClient:
    """A client whose key counts already."""
    key, keys = issue_key(scorer.log), scorer.keys
    assert keys is not None
    wait_for(lambda: keys.recognise(key.encode()) is not None, 3)
    return AppClient(create_app(scorer), bearer(key))


class TestClockFile:
    """Tests for `ClockFile`."""

    def test_time_stands_still_until_the_file_says_another(self, clock_file: Path) -> None:
        """Forth, and back too: tests of jumping clocks need it."""
        clock = ClockFile(clock_file)

        assert [NOON, NOON] == [clock(), clock()]
        for jump in (YEAR, -YEAR):
            write_instant(clock_file, NOON + jump)
            assert NOON + jump == clock()

    @pytest.mark.parametrize("instant", ["2026-03-02T13:00:00+01:00", "2026-03-02T12:00:00Z\n", " 2026-03-02 12:00+00"])
    def test_an_instant_is_read_with_its_offset(self, clock_file: Path, instant: str) -> None:
        """In UTC, wherever the writer lives."""
        clock_file.write_text(instant)

        assert (NOON, UTC) == (ClockFile(clock_file)(), ClockFile(clock_file)().tzinfo)

    @pytest.mark.parametrize(
        "damaged", ["", "noon", "2026-03-02T12:00:00", "2026-03-02\n2026-03-03", "\ufeff2026", None]
    )
    def test_a_file_that_tells_no_time_opens_no_clock(self, clock_file: Path, damaged: str | None) -> None:
        """The message names the setting, the file and the way out."""
        clock_file.unlink()
        if damaged is not None:
            clock_file.write_text(damaged, encoding="utf-8")

        with pytest.raises(ClockFileError, match=rf"CDE_CLOCK_FILE names {clock_file}, .* unset it"):
            ClockFile(clock_file)

    def test_a_clock_that_runs_keeps_its_last_instant(self, clock_file: Path) -> None:
        """Never the machine's time, which would mix two calendars; a mended file is followed again."""
        clock = ClockFile(clock_file)
        clock_file.write_text("noon")

        assert NOON == clock()
        assert clock.problem
        clock_file.unlink()
        assert NOON == clock()
        write_instant(clock_file, NOON + YEAR)
        assert (NOON + YEAR, None) == (clock(), clock.problem)

    def test_only_an_aware_instant_is_written(self, clock_file: Path) -> None:
        """Nobody could tell which hour another was."""
        with pytest.raises(ValueError, match="offset"):
            write_instant(clock_file, datetime(2026, 3, 2))  # as a careless caller has it

        assert NOON == read_instant(clock_file)


class TestWhoGoesByIt:
    """Tests for the setting `CDE_CLOCK_FILE`."""

    def test_without_it_the_machine_tells_the_time(self) -> None:
        """As everywhere where applicants are real."""
        assert utc_now is Settings(_env_file=None).clock()

    def test_a_decision_is_of_the_day_that_the_file_tells(
        self, scorer: Scorer, tiny: TinyLoans, clock_file: Path
    ) -> None:
        """Answer and record, a year apart by one line in a file."""
        client = client_of(scorer)

        first = client.post(SCORE, json=dict(tiny.portfolio.example)).json()
        write_instant(clock_file, NOON + YEAR)
        second = client.post(SCORE, json=dict(tiny.portfolio.example)).json()

        assert [NOON, NOON + YEAR] == [datetime.fromisoformat(told["applied_at"]) for told in (first, second)]
        record = scorer.log.get(second["decision_id"], "default")
        assert record is not None
        assert NOON + YEAR == datetime.fromisoformat(record.applied_at)

    def test_an_outcome_of_tomorrow_is_in_the_future(self, scorer: Scorer, tiny: TinyLoans, clock_file: Path) -> None:
        """Until the file says that tomorrow has come."""
        client = client_of(scorer)
        decision = client.post(SCORE, json=dict(tiny.portfolio.example)).json()["decision_id"]
        tomorrow = {"outcome": "repaid", "date": f"{NOON + timedelta(days=1):%Y-%m-%d}"}
        route = f"/api/v1/credit/decisions/{decision}/outcome"

        early = client.post(route, json=tomorrow)
        write_instant(clock_file, NOON + timedelta(days=1))
        due = client.post(route, json=tomorrow)

        assert (422, 201) == (early.status_code, due.status_code)

    def test_a_service_says_that_it_goes_by_a_file(
        self, settings: Settings, tiny: TinyLoans, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A forgotten test setting must not pass unseen."""
        monkeypatch.syspath_prepend(str(tiny.folder))
        open_scorer(settings, settings.home / "no-release").close()

        assert "CDE_CLOCK_FILE" in capsys.readouterr().out

    def test_no_service_starts_with_a_clock_that_tells_no_time(
        self, settings: Settings, clock_file: Path, tiny: TinyLoans, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before anything is opened or written."""
        monkeypatch.syspath_prepend(str(tiny.folder))
        clock_file.write_text("noon")

        with pytest.raises(ClockFileError, match="CDE_CLOCK_FILE"):
            open_scorer(settings, settings.home / "no-release")

        assert not settings.home.exists()

    def test_no_command_runs_with_a_clock_that_tells_no_time(
        self, clock_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Misuse, with the way out."""
        clock_file.write_text("noon")
        for name, value in {"CDE_CLOCK_FILE": str(clock_file), "CDE_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)

        done = CliRunner().invoke(app, ["experiment", "show"])

        assert 2 == done.exit_code
        assert "CDE_CLOCK_FILE" in done.output

    def test_a_promotion_is_of_the_day_that_the_file_tells(self, settings: Settings, clock_file: Path) -> None:
        """Ledger and experiments alike, as assets open them."""
        releases = ReleasesResource.of(settings, NAME)
        entry = releases.store().ledger.append(
            action="promote",
            portfolio=NAME,
            bundle="a" * 64,
            expected_sequence=0,
            evidence="e" * 64,
            by="test",
            key=releases.signer(),
        )
        write_instant(clock_file, NOON + YEAR)

        assert date(2026, 3, 2).isoformat() == entry.at[:10]
        assert NOON + YEAR == releases.now()
