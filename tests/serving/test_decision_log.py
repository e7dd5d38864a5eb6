"""Tests for `cde_serving.decision_log`."""

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cde_serving.decision_log import DecisionLog, LogBusyError, LogUnavailableError
from cde_serving.records.record import DEFAULT_TENANT
from tests.serving.helpers import RECORD, numbered, open_log, wait_for


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log's database is."""
    return tmp_path / "decisions.sqlite"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    """An empty log."""
    log = open_log(tmp_path)
    yield log
    log.close()


def rows(path: Path) -> int:
    """How many decisions a stranger to the process sees."""
    with sqlite3.connect(path) as database:
        return int(database.execute("SELECT count(*) FROM records").fetchone()[0])


def test_a_record_is_read_back_to_the_byte(log: DecisionLog) -> None:
    """The log adds its own number and time, and changes nothing else."""
    answer = asyncio.run(log.record(RECORD))

    kept = replace(RECORD, chain=log.writer.chain, sequence=1, recorded_at="2026-03-02T12:00:00.000000Z")
    assert kept == log.get(RECORD.record_id, DEFAULT_TENANT)
    assert RECORD.payload.answer == answer
    assert log.get("f" * 32, DEFAULT_TENANT) is None


def test_a_recorded_decision_is_visible_to_everybody(log: DecisionLog, path: Path) -> None:
    """`record` returns after the commit, not after the insert."""

    async def record_and_look() -> list[int]:
        seen = []
        for number in range(20):
            await log.record(numbered(number))
            seen.append(rows(path))
        return seen

    assert list(range(1, 21)) == asyncio.run(record_and_look())


def test_decisions_that_wait_together_share_a_commit(log: DecisionLog, path: Path) -> None:
    """A slow disk is asked once for all that wait, in the order they came."""
    commits = []

    async def record_all() -> None:
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")  # holds the writer up until all the rest wait
            first = asyncio.gather(*(log.record(numbered(number)) for number in range(100)))
            await asyncio.sleep(0.2)
            other.execute("ROLLBACK")
        await first

    sa.event.listen(log._write_engine, "commit", lambda _: commits.append(1))
    asyncio.run(record_all())

    assert log.count() == 100
    assert len(commits) <= 2
    with sqlite3.connect(path) as database:
        ids = [row[0] for row in database.execute("SELECT record_id FROM records ORDER BY sequence")]
    assert [f"{number:032x}" for number in range(100)] == ids


def test_every_commit_is_flushed_to_disk(log: DecisionLog) -> None:
    """The writer's connection runs with a write-ahead log and full synchronisation."""
    with log._write_engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2


def test_a_database_that_cannot_flush_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A log that could lose answered decisions does not open."""
    monkeypatch.setattr("cde_serving.records.database._configure_sqlite", lambda connection, _: None)

    with pytest.raises(LogUnavailableError, match="journal_mode=delete"):
        open_log(tmp_path)


def test_a_full_queue_refuses_at_once(path: Path) -> None:
    """Decisions are not piled up without bound while the database is held up."""
    log = open_log(path.parent, queue_limit=4)

    async def overload() -> list[BaseException | bytes]:
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.gather(*(log.record(numbered(number)) for number in range(40)), return_exceptions=True)
            await asyncio.sleep(0.1)
            other.execute("ROLLBACK")
        return await waiting

    results = asyncio.run(overload())
    log.close()

    assert any(isinstance(result, LogBusyError) for result in results)
    assert rows(path) == sum(isinstance(result, bytes) for result in results)


def test_a_failing_database_fails_the_decisions_that_wait(log: DecisionLog, path: Path) -> None:
    """An error reaches the request, and the log works again once the database does."""
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE records RENAME TO hidden")

    with pytest.raises(LogUnavailableError):
        asyncio.run(log.record(numbered(1)))
    assert log.problem is not None

    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE hidden RENAME TO records")
    wait_for(lambda: log.problem is None, 5)
    asyncio.run(log.record(numbered(2)))

    assert log.count() == 1


def test_a_database_that_lost_decisions_is_written_to_no_more(log: DecisionLog, path: Path) -> None:
    """A file put back from an older copy under a running service is noticed, not continued."""

    async def record_all() -> None:
        for number in range(5):
            await log.record(numbered(number))

    asyncio.run(record_all())
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE records RENAME TO hidden")
    with pytest.raises(LogUnavailableError):
        asyncio.run(log.record(numbered(5)))
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM hidden WHERE sequence > 3")
        database.execute("ALTER TABLE hidden RENAME TO records")

    with pytest.raises(LogUnavailableError):
        asyncio.run(log.record(numbered(6)))

    assert "LogUnavailableError" == log.problem
    assert 3 == log.count()


def test_an_error_does_not_quote_the_applicant(log: DecisionLog, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the log's problem nor the service's own log holds values of the record."""
    asyncio.run(log.record(RECORD))

    with pytest.raises(LogUnavailableError) as raised:
        asyncio.run(log.record(RECORD))  # the same id again

    told = f"{raised.value} {log.problem} {capsys.readouterr()}"
    assert "IntegrityError" in told
    assert "customer-1" not in told


def test_closing_records_what_waits(path: Path) -> None:
    """A service that is asked to stop waits for a slow disk, and loses nothing."""
    log = open_log(path.parent)

    async def record_and_close() -> int:
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = [asyncio.create_task(log.record(numbered(number))) for number in range(50)]
            await asyncio.sleep(0)
            closing = asyncio.create_task(asyncio.to_thread(log.close))
            await asyncio.sleep(0.2)
            assert not closing.done()
            other.execute("ROLLBACK")
        await closing
        kept = rows(path)
        await asyncio.gather(*waiting)
        return kept

    assert asyncio.run(record_and_close()) == 50
    with pytest.raises(LogUnavailableError, match="closed"):
        asyncio.run(log.record(RECORD))


def test_a_decision_that_comes_while_the_log_closes_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nobody waits for a writer that has gone."""
    log = open_log(tmp_path)
    waiting = log.writer._waiting

    def closing(entry: Any) -> Any:
        log.writer.close()
        return waiting(entry)

    monkeypatch.setattr(log.writer, "_waiting", closing)

    with pytest.raises(LogUnavailableError, match="closed"):
        asyncio.run(asyncio.wait_for(log.record(numbered(1, idempotency_key="k")), 2))
    with pytest.raises(LogUnavailableError, match="closed"):  # and the key is not left in use
        asyncio.run(asyncio.wait_for(log.record(numbered(1, idempotency_key="k")), 2))
    log.close()


@pytest.mark.parametrize("damaged", [bytes(60), "text"])
def test_a_damaged_customer_key_fails_its_own_decisions_alone(
    log: DecisionLog, path: Path, damaged: bytes | str
) -> None:
    """Others of the same commit are recorded, and the log is as ready as before."""
    asyncio.run(log.record(numbered(1)))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE customer_keys SET wrapped = ?", (damaged,))

    async def together() -> list[bytes | BaseException]:
        others = RECORD.payload.__replace__(customer_id="customer-2")
        records = (numbered(2), numbered(3, payload=others), numbered(4), numbered(5, payload=others))
        return await asyncio.gather(*map(log.record, records), return_exceptions=True)

    told = []
    log.writer.on_damaged_key = lambda: told.append(1)
    first, second, third, fourth = asyncio.run(together())

    assert isinstance(first, LogUnavailableError)
    assert isinstance(third, LogUnavailableError)
    assert second == fourth == RECORD.payload.answer
    assert (3, None, [1]) == (rows(path), log.problem, told)
