"""The home that every way around the gate is tried on, and who works in it."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cde_assets.cli import app
from cde_domain.portfolio import load_portfolio
from cde_resources import portfolio as portfolio_resource
from cde_serving.signing import SigningKey
from tests.lender import Lender
from tests.waiting import (
    NAME,
    promote,
    releases,
    with_other_policy,
)


@pytest.fixture(scope="session")
def waiting_home(german_as_promoted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one champion, and another challenger that passed everything and waits for its promotion."""
    home = Path(shutil.copytree(german_as_promoted, tmp_path_factory.mktemp("ways") / "home"))
    with Lender(home, NAME) as lender:
        promote(lender, with_other_policy(lender.store.bundles))
        assert lender.run("evaluation", "compliance_report", "model_card", "evidence_pack").success
    return home


@pytest.fixture
def lender(waiting_home: Path, tmp_path: Path) -> Iterator[Lender]:
    """The lender of a copy of that home, to be cheated."""
    with Lender(Path(shutil.copytree(waiting_home, tmp_path / "home")), NAME) as lender:
        yield lender


@pytest.fixture
def champion(lender: Lender) -> str:
    """The bundle that answers before anything is tried."""
    return lender.ledger.entries()[-1].bundle


@pytest.fixture
def approver(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> SigningKey:
    """The portfolio wants an approval; Jane's public key is filed, and hers is returned."""
    wanting = dataclasses.replace(load_portfolio(NAME), promotion="approval_required")
    monkeypatch.setattr(portfolio_resource, "_loaded", lambda reference: wanting)
    key = SigningKey.generate()
    folder = lender.settings.approver_keys_folder()
    folder.mkdir(parents=True)
    (folder / "jane.pem").write_bytes(key.public.pem())
    (folder / "bob.pem").write_bytes(SigningKey.generate().public.pem())
    (folder / "platform.pem").write_bytes(releases(lender).signer().public.pem())
    return key


@pytest.fixture
def cde(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Give the `cde` command, in this process; returns its exit status and what it printed."""
    for name in ("CDE_PORTFOLIO", "DAGSTER_HOME"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("CDE_HOME", str(lender.settings.home))

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, result.output

    return run
