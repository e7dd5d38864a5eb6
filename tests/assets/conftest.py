"""Fixtures of the tests of assets: a small portfolio that is watched, a lender, and Dagster instances."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.assets.bank import Bank
from tests.assets.branch import write_watched_loans
from tests.support import TinyLoans, write_tiny_bundle, write_tiny_loans


@pytest.fixture(scope="session")
def empty_instance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an instance that nothing was done with; making its databases takes seconds."""
    folder = tmp_path_factory.mktemp("dagster") / "empty"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        instance.all_instigator_state()
        instance.get_runs(limit=1)
    return folder


@pytest.fixture
def instance_on_disk(empty_instance: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance as the daemon has one; those in memory know no schedules."""
    folder = Path(shutil.copytree(empty_instance, tmp_path / "dagster"))
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        yield instance


@pytest.fixture(scope="module")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TinyLoans, Path]]:
    """The small portfolio, and a bundle of it."""
    tiny = write_tiny_loans(tmp_path_factory.mktemp("lender"))
    yield tiny, write_tiny_bundle(tiny, tmp_path_factory.mktemp("models"), seed=1)
    sys.path.remove(str(tiny.folder))


@pytest.fixture(scope="session")
def watched_loans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TinyLoans, Path]]:
    """The small portfolio as it is watched, and a bundle of it."""
    tiny, bundle = write_watched_loans(tmp_path_factory.mktemp("watched"))
    yield tiny, bundle
    sys.path.remove(str(tiny.folder))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance in memory."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def bank(tmp_path: Path, instance: dg.DagsterInstance) -> Bank:
    """A lender whose reports and runs a test tells Dagster of."""
    return Bank(tmp_path, instance)
