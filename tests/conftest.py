"""Every test runs on state of its own, with telemetry off and no settings of the person who runs it."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

for _name in [name for name in os.environ if name.startswith("CDE_")]:
    del os.environ[_name]
os.environ.update(
    DAGSTER_DISABLE_TELEMETRY="1", MLFLOW_DISABLE_TELEMETRY="true", BENTOML_DO_NOT_TRACK="True", DO_NOT_TRACK="true"
)

from tests.lender import Lender, run_cde  # noqa: E402  # settings are read from the environment when these are imported
from tests.serving.postgres import Postgres, running_postgres  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files, so that no core waits for one at the end."""
    items.sort(key=lambda item: "stories" not in item.path.parts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where nothing may be missing, as in CI, a test that is skipped has failed, whatever it was skipped for."""
    report = yield
    if report.skipped and "TESTS_NEVER_SKIP" in os.environ:
        report.outcome, report.longrepr = "failed", f"skipped where nothing may be: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for the session."""
    # Not below pytest's folder, which is closed to the user that the server runs as.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder, running_postgres(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def german_as_promoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which `cde demo german_credit` promoted a model, once for all workers; to be copied, not worked in."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    home = shared / "german-as-promoted"
    with (shared / "german.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "demo" / "printed.txt").exists():  # written last
            shutil.rmtree(home, ignore_errors=True)
            done = run_cde(home, "demo", "german_credit")
            assert done.returncode == 0, done.stdout + done.stderr
            (home / "demo" / "printed.txt").write_text(done.stdout, encoding="utf-8")
    return home


@pytest.fixture(scope="session")
def german_home(german_as_promoted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that home, in which tests work one after the other."""
    return Path(shutil.copytree(german_as_promoted, tmp_path_factory.mktemp("german") / "home", symlinks=True))


@pytest.fixture
def german(german_home: Path) -> Iterator[Lender]:
    """The lender of that home, to run assets in this process."""
    with Lender(german_home, "german_credit") as lender:
        yield lender
