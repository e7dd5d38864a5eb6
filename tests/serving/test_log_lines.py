"""A line of the service's log that cannot be written costs a line, and no decision."""

import asyncio
import contextlib
import io
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa
import structlog

from cde_serving.decision_log import LogUnavailableError
from cde_serving.logs import Lines
from tests.serving.helpers import SCORE, Desk, numbered, wait_for


@contextlib.contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output on a full disk, written to as the service does."""
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115  # closing it fails, too
    monkeypatch.setattr(sys, "stdout", full)
    structlog.configure(logger_factory=lambda *_: Lines())
    with pytest.raises(OSError, match="No space left"):
        print("a line", flush=True)
    try:
        yield
    finally:
        monkeypatch.undo()
        structlog.reset_defaults()
        with contextlib.suppress(OSError):
            full.close()


@contextlib.contextmanager
def unreachable_records(desk: Desk) -> Iterator[None]:
    for old, new in (("records", "elsewhere"), ("elsewhere", "records")):
        with desk.scorer.log._write_engine.begin() as database:
            database.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))
        if new == "elsewhere":
            yield


def test_the_writer_survives_a_failure_that_it_cannot_tell_of(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disk and log fill up together: requests are refused, and recorded again once there is room."""
    with full_disk(monkeypatch):
        with unreachable_records(desk):
            assert 503 == desk.score().status_code
            assert 503 == desk.client.get("/ready").status_code

        wait_for(lambda: desk.score().status_code == 200, 10)
        assert 200 == desk.client.get("/ready").status_code


def test_a_failed_decision_is_recorded_though_it_cannot_be_told_of(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to a person, and the neighbours in its burst are decided."""
    bundle = desk.scorer.releases.serving
    assert bundle is not None
    decide_all = bundle.engine.decide_all

    def overflowing(applications: Any, applied_at: Any) -> Any:
        if any(one.annual_income == 21_000.0 for one in applications):
            raise OverflowError
        return decide_all(applications, applied_at)

    monkeypatch.setattr(bundle.engine, "decide_all", overflowing)

    async def burst() -> list[list[str]]:
        bodies = [{**desk.example, "annual_income": 20_000.0 + 1000 * number} for number in range(3)]
        answers = await asyncio.gather(*(desk.client.send("POST", SCORE, json=body) for body in bodies))
        return [answer.json()["reason_codes"] for answer in answers]

    with full_disk(monkeypatch):
        codes = asyncio.run(burst())

    assert ["DECISION_FAILED"] == codes[1]
    assert ["DECISION_FAILED"] not in codes[::2]


def test_a_writer_that_has_ended_is_told_and_refuses_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever killed its thread: nobody waits for a record that will never be, and the service is not ready."""

    def broken(*_: object) -> NoReturn:
        raise RuntimeError("the thread ends here")

    log = desk.scorer.log
    monkeypatch.setattr(log.writer, "_seal_if_due", broken)
    monkeypatch.setattr("threading.excepthook", lambda *_: None)
    asyncio.run(log.record(numbered(1)))
    wait_for(lambda: log.writer.has_ended, 5)

    assert 503 == desk.client.get("/ready").status_code
    assert 503 == desk.score().status_code
    with pytest.raises(LogUnavailableError):
        asyncio.run(log.record(numbered(2)))


def test_lines_of_two_threads_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is written whole, also where standard output is not buffered."""
    path = tmp_path / "service.log"
    with io.TextIOWrapper(path.open("wb", buffering=0), write_through=True) as output:  # type: ignore[type-var]
        monkeypatch.setattr(sys, "stdout", output)
        lines, expected = Lines(), [str(number) * 200 for number in range(4)]
        threads = [threading.Thread(target=lambda one=one: [lines.msg(one) for _ in range(500)]) for one in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monkeypatch.undo()

    assert Counter(path.read_text().splitlines()) == dict.fromkeys(expected, 500)
