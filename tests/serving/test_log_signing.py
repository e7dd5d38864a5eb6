"""The ends of chains are signed, of every process its own."""

import asyncio
import json
from contextlib import closing
from pathlib import Path

import pytest

from cde_serving.decision_log import LogUnavailableError
from cde_serving.records import writer
from tests.serving.helpers import numbered, open_log
from tests.serving.written_log import RECORDS, Written, record_all


def test_every_process_writes_a_chain_of_its_own(written: Written, log_url: str) -> None:
    """Two writers at once need no lock between them."""
    with closing(open_log(written.folder, log_url)) as first, closing(open_log(written.folder, log_url)) as second:

        async def both() -> None:
            await asyncio.gather(record_all(first, range(100, 140)), record_all(second, range(200, 240)))

        asyncio.run(both())

    found = written.verify()
    assert ((), 3, RECORDS + 80) == (found.problems, found.chains, found.records)


def test_what_was_not_signed_yet_is_counted(written: Written, log_url: str) -> None:
    """Of a writer that runs, the newest records are chained but not signed."""
    log = open_log(written.folder, log_url)
    asyncio.run(record_all(log, range(100, 103)))

    assert ((), 3) == (written.verify().problems, written.verify().unsigned)
    log.close()
    assert 0 == written.verify().unsigned


def test_the_end_is_signed_within_a_second(log_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet service does not leave its last decisions unsigned."""
    monkeypatch.setattr(writer, "CHECKPOINT_SECONDS", 0.1)
    with closing(open_log(tmp_path, log_url)) as log:

        async def record_and_wait() -> None:
            await record_all(log, range(3))
            await asyncio.sleep(0.5)

        asyncio.run(record_and_wait())
        lines = (tmp_path / "checkpoints.jsonl").read_bytes().splitlines()

    assert 3 == json.loads(lines[-1])["sequence"]


def test_checkpoints_that_cannot_be_written_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions go on, and `problem` says that their chain is not signed."""
    monkeypatch.setattr(writer, "CHECKPOINT_SECONDS", 0.1)
    with closing(open_log(tmp_path)) as log:

        async def record_and_wait() -> None:
            await log.record(numbered(1))
            (tmp_path / "checkpoints.jsonl").unlink()
            (tmp_path / "checkpoints.jsonl").mkdir()
            await log.record(numbered(2))
            await asyncio.sleep(0.5)

        asyncio.run(record_and_wait())

        assert log.problem == "IsADirectoryError"
        (tmp_path / "checkpoints.jsonl").rmdir()


def test_a_chain_is_not_begun_unsigned(tmp_path: Path) -> None:
    """Without its first checkpoint a whole chain could vanish, so nothing is recorded."""
    (tmp_path / "checkpoints.jsonl").mkdir()

    with closing(open_log(tmp_path)) as log, pytest.raises(LogUnavailableError):
        asyncio.run(log.record(numbered(1)))
