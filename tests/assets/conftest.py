"""Dagster instances on disk, made once and copied."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest


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
