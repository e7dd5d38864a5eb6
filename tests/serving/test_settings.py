"""Tests for `cde_serving.settings`."""

import re
from pathlib import Path

import pytest

from cde_domain.portfolio import PortfolioError
from cde_serving.settings import Settings
from tests.support import NAME, REFERENCE, TinyLoans

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def documented() -> list[tuple[str, str]]:
    """The settings in `.env.example`, each with the default that it shows."""
    return re.findall(r"^# CDE_([A-Z_]+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_setting_is_documented_exactly_once() -> None:
    """`.env.example` names the fields of Settings, no more and no fewer."""
    assert sorted(Settings.model_fields) == sorted(name.lower() for name, _ in documented())


def test_the_documented_defaults_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncommenting every line of `.env.example` changes nothing."""
    plain = Settings(_env_file=None)
    for name, value in documented():
        monkeypatch.setenv(f"CDE_{name}", value)

    assert plain == Settings(_env_file=None)


def test_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A later change of the working directory does not move the state."""
    monkeypatch.chdir(tmp_path)

    assert tmp_path / "state" == Settings(home=Path("state"), _env_file=None).home


def test_source_options_are_read_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of the sources come from one environment variable."""
    monkeypatch.setenv("CDE_SOURCE_OPTIONS", '{"rows": 500}')

    assert Settings(_env_file=None).source_options == {"rows": 500}


def test_databases_lie_under_home_unless_set() -> None:
    """MLflow and the decision log use SQLite files under CDE_HOME by default."""
    settings = Settings(home=Path("/state"), _env_file=None)

    assert settings.tracking_uri() == "sqlite:////state/mlflow.sqlite"
    assert settings.log_url("german_credit") == "sqlite:////state/german_credit/decisions.sqlite"
    assert Settings(decision_log_url="postgresql://db", _env_file=None).log_url("any") == "postgresql://db"


def test_an_import_path_is_served_under_its_portfolios_name(tiny: TinyLoans) -> None:
    """The folder under CDE_HOME bears the portfolio's name, not the import path."""
    assert Settings(portfolio=REFERENCE, _env_file=None).portfolio_name() == NAME


def test_an_import_path_that_leads_nowhere_is_refused_by_name() -> None:
    """The error says which reference cannot be loaded."""
    with pytest.raises(PortfolioError, match=r"no_such_bank\.loans:PORTFOLIO"):
        Settings(portfolio="no_such_bank.loans:PORTFOLIO", _env_file=None).portfolio_name()
