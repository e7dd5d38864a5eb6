"""A PostgreSQL that does not answer stalls nobody for long: refused in time, ended in time, nothing lost or doubled."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from cde_serving import decision_log
from cde_serving.decision_log import DecisionLog, LogUnavailableError
from cde_serving.records import impatient, writer
from cde_serving.records.database import open_reader
from cde_serving.records.verify import verify_log
from cde_serving.signing import TrustedKeys
from tests.serving.helpers import RECORD, SCORE, numbered, open_log, recorded_answers, start_server, wait_for
from tests.serving.postgres import Postgres
from tests.support import TinyLoans

SECONDS = 0.6  # that a transaction may take here
REFUSED_WITHIN = SECONDS + 1.0


@contextlib.contextmanager
def stopped(server: Postgres) -> Iterator[None]:
    """Let a server stand still: it answers nothing, and no connection breaks."""
    assert server.process is not None
    postmaster = psutil.Process(server.process.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@contextlib.contextmanager
def locked(url: str, statement: str) -> Iterator[None]:
    """Another session's transaction that does not end."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
        yield
        connection.rollback()


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
def log(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DecisionLog]:
    """A log with one decision, whose patience is short."""
    monkeypatch.setattr(impatient, "TRANSACTION_SECONDS", SECONDS)
    monkeypatch.setattr(impatient, "LOCK_SECONDS", SECONDS * 0.8)
    monkeypatch.setattr(writer, "LATE_SECONDS", SECONDS / 2)
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.1)
    with contextlib.closing(open_log(tmp_path, url)) as log:
        asyncio.run(log.record(numbered(1)))
        yield log


def refused_after(log: DecisionLog, *numbers: int) -> float:
    """How long it took until decisions, a tenth of a second between them, were all refused."""

    async def record(place: int, number: int) -> None:
        await asyncio.sleep(place / 10)
        with pytest.raises(LogUnavailableError):
            await log.record(numbered(number, idempotency_key=f"k-{number}"))

    async def record_all() -> None:
        await asyncio.gather(*(record(*each) for each in enumerate(numbers)))

    began = time.monotonic()
    asyncio.run(record_all())
    return time.monotonic() - began


def recorded(log: DecisionLog) -> list[int]:
    with log.read_engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT record_id FROM records WHERE kind = 'decision' ORDER BY record_id"))
        return [int(record_id, 16) for record_id in rows.scalars()]


def problems(url: str, folder: Path) -> tuple[str, ...]:
    return verify_log(open_reader(url), folder / "checkpoints.jsonl", TrustedKeys.read(folder / "log.pub")).problems


@pytest.mark.parametrize("statement", ["SELECT * FROM customer_keys FOR UPDATE", "LOCK TABLE records"])
def test_what_waits_for_a_strangers_lock_is_refused_in_time(
    log: DecisionLog, url: str, tmp_path: Path, statement: str
) -> None:
    """And recorded once when it is sent again after the lock."""
    with locked(url, statement):
        assert refused_after(log, 2) < REFUSED_WITHIN

    wait_for(lambda: log.problem is None, 3)
    asyncio.run(log.record(numbered(2, idempotency_key="k-2")))
    assert [1, 2] == recorded(log)
    log.close()
    assert () == problems(url, tmp_path)


def test_a_log_that_is_locked_stays_a_problem(log: DecisionLog, url: str) -> None:
    """It is tried with the locks that a decision needs, so that nobody is sent to a service that will refuse."""
    with locked(url, "LOCK TABLE records IN EXCLUSIVE MODE"):
        refused_after(log, 2)
        time.sleep(3 * SECONDS)
        assert "LockNotAvailable" == log.problem


def test_a_database_that_stands_still_is_told_and_no_decision_waits_for_it(
    log: DecisionLog, url: str, postgres: Postgres, tmp_path: Path
) -> None:
    """Those in the queue, too; once it goes on, what is sent again is recorded once, whatever became of the commit."""
    with stopped(postgres):
        took = refused_after(log, 2, 3, 4)
        assert log.problem is not None

    assert took < REFUSED_WITHIN
    wait_for(lambda: log.problem is None, 5)
    for number in (2, 3, 4):
        asyncio.run(log.record(numbered(number, idempotency_key=f"k-{number}")))
    assert [1, 2, 3, 4] == recorded(log)
    log.close()
    assert () == problems(url, tmp_path)


def test_a_wait_is_a_problem_before_it_has_failed(log: DecisionLog, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no more is sent to a service whose oldest decision waits too long."""
    monkeypatch.setattr(decision_log, "STALLED_SECONDS", SECONDS / 4)
    with locked(url, "LOCK TABLE records"):
        refused = threading.Thread(target=refused_after, args=(log, 2))
        refused.start()
        wait_for(lambda: log.problem == "the database does not answer", SECONDS * 0.7)
        refused.join()


def test_reads_of_a_database_that_stands_still_end(log: DecisionLog, postgres: Postgres) -> None:
    """Otherwise no process that has asked could end."""
    assert log.get(f"{1:032x}", "default") is not None
    with stopped(postgres):
        began = time.monotonic()
        with pytest.raises(sa.exc.OperationalError):
            log.get(f"{1:032x}", "default")
        assert time.monotonic() - began < REFUSED_WITHIN

    assert log.get(f"{1:032x}", "default") is not None


def test_a_commit_that_comes_after_the_log_was_closed_breaks_no_chain(
    log: DecisionLog, url: str, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server had been told to commit when it stopped: it does so later, and nobody was answered."""
    standing_still = contextlib.ExitStack()
    insert = log.writer._statements.insert

    def insert_and_stop(*args: Any) -> None:
        insert(*args)
        standing_still.enter_context(stopped(postgres))

    monkeypatch.setattr(log.writer._statements, "insert", insert_and_stop)
    with standing_still:
        refused_after(log, 2)
        began = time.monotonic()
        log.close()
        assert time.monotonic() - began < writer.CLOSE_SECONDS

    answers = recorded_answers(url, tmp_path / "master.key")
    wait_for(lambda: len(recorded_answers(url, tmp_path / "master.key")) == 2, 3)
    assert RECORD.payload.answer in answers.values()
    assert () == problems(url, tmp_path)


@pytest.mark.slow
def test_a_service_whose_database_stands_still_refuses_and_ends_in_time(
    tiny: TinyLoans, bundles: tuple[Path, Path], postgres: Postgres, tmp_path: Path
) -> None:
    """503 and not ready within some seconds, and SIGTERM ends it within the graceful time."""
    server = start_server(tiny, tmp_path, CDE_DECISION_LOG_URL=postgres.new_database())
    try:
        server.releases.promote(bundles[0])
        wait_for(lambda: server.client.get("/ready").status_code == 200, 20)
        assert 200 == server.client.post(SCORE, json=tiny.portfolio.example).status_code
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(server.client.post(SCORE, json=tiny.portfolio.example).status_code)

        with stopped(postgres):
            clients = [threading.Thread(target=ask) for _ in range(4)]
            for client in clients:
                client.start()
            not_ready = wait_for(lambda: server.client.get("/ready").status_code == 503, 8)
            for client in clients:
                client.join()
            began = time.monotonic()
            server.stop()
            ended = time.monotonic() - began
        print(f"not ready after {not_ready:.1f} s, ended after {ended:.1f} s")
        assert [503] * 4 == statuses
        assert ended < 20
    finally:
        server.kill()
