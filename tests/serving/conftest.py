"""Fixtures of the serving tests: two bundles, an app in this process, and a real server."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cde_serving.access.key_ring import KeyRing
from cde_serving.access.rates import Rates
from cde_serving.app import create_app
from cde_serving.follower import ReleaseFollower
from cde_serving.kill_switch import KillSwitch
from cde_serving.metrics import Metrics
from cde_serving.plan import PlanFollower
from cde_serving.records import writer
from cde_serving.records.database import open_engines
from cde_serving.scorer import Scorer
from tests.serving.helpers import (
    NOON,
    AppClient,
    Desk,
    Releases,
    Server,
    bearer,
    issue_key,
    open_log,
    releases_in,
    start_server,
)
from tests.serving.postgres import Postgres
from tests.serving.written_log import RECORDS, Written, record_all
from tests.support import NAME, TinyLoans, write_tiny_bundle, write_tiny_loans


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLoans:
    """The small portfolio, in a folder outside the repository."""
    return write_tiny_loans(tmp_path_factory.mktemp("lender"))


@pytest.fixture(scope="session")
def bundles(tiny: TinyLoans, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles with different models."""
    folder = tmp_path_factory.mktemp("models")
    return write_tiny_bundle(tiny, folder, seed=1), write_tiny_bundle(tiny, folder, seed=2)


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """An empty portfolio home."""
    return releases_in(tmp_path / "home" / NAME)


@pytest.fixture
def open_desk(tiny: TinyLoans, tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    """Open the app over releases; everything is closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def open_one(releases: Releases, *, auth: bool = True) -> Desk:
            log = open_log(tmp_path)
            metrics = Metrics()
            follower = ReleaseFollower(releases.store, on_failure=metrics.release_failed)
            follower.start()
            key = issue_key(log)
            scorer = Scorer(
                follower,
                log,
                metrics,
                clock=lambda: NOON,
                promote="make demo",
                switch=KillSwitch(log.read_engine, NAME),
                plan=PlanFollower(releases.store, on_failure=metrics.experiment_failed),
                keys=KeyRing(log.read_engine, log.master) if auth else None,
                rates=Rates("100000/second"),
            )
            stack.callback(scorer.close)
            return Desk(
                scorer, AppClient(create_app(scorer), bearer(key) if auth else {}), dict(tiny.portfolio.example)
            )

        yield open_one


@pytest.fixture
def desk(open_desk: Callable[[Releases], Desk], releases: Releases, bundles: tuple[Path, Path]) -> Desk:
    """The app with the first bundle promoted."""
    releases.promote(bundles[0])
    return open_desk(releases)


@pytest.fixture(params=["sqlite", "postgresql"])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database for a decision log, of each kind that is supported."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'decisions.sqlite'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def written(log_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """A log of `RECORDS` decisions, whose writer is closed."""
    monkeypatch.setattr(writer, "CHECKPOINT_RECORDS", 5)
    monkeypatch.setattr(writer, "CHECKPOINT_SECONDS", 60.0)
    with contextlib.closing(open_log(tmp_path, log_url)) as log:
        asyncio.run(record_all(log, range(1, RECORDS + 1)))
    engines = open_engines(log_url)
    yield Written(engines[0], tmp_path)
    for engine in engines:
        engine.dispose()


@pytest.fixture(scope="module")
def server(tiny: TinyLoans, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for a file's tests, started with nothing promoted."""
    server = start_server(tiny, tmp_path_factory.mktemp("server"))
    yield server
    server.kill()
