"""Tests for `cde_serving.records.verify`: what is changed afterwards is found and located."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import Connection

from cde_serving.decision_log import LogUnavailableError
from cde_serving.records import writer
from cde_serving.records.chain import record_hash
from cde_serving.records.database import open_engines, open_reader
from cde_serving.records.erasure import Eraser
from cde_serving.records.replay import Replayer
from cde_serving.records.schema import customer_keys, metadata, records
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey
from cde_serving.records.verify import Verification, verify_log
from cde_serving.signing import TrustedKeys
from tests.serving.helpers import NOON, numbered, open_log

RECORDS = 25


@dataclass
class Written:
    """A log that was written and closed, in a chain of 25 records with a checkpoint every five."""

    engine: sa.Engine
    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints.jsonl"

    def verify(self) -> Verification:
        return verify_log(self.engine, self.checkpoints, TrustedKeys.read(self.folder / "log.pub"), self.master)

    @property
    def master(self) -> MasterKey:
        return MasterKey.open(self.folder / "master.key", create=False)

    def problems(self) -> list[str]:
        """What is wrong, without the chain's name."""
        return [problem.split(" ", 2)[2] for problem in self.verify().problems]

    def change(self, work: Callable[[Connection], Any]) -> None:
        """Do what somebody with the database's password could."""
        with self.engine.begin() as connection:
            work(connection)


async def record_all(log: Any, numbers: range) -> None:
    for number in numbers:
        await log.record(numbered(number))


@pytest.fixture
def written(log_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    monkeypatch.setattr(writer, "CHECKPOINT_RECORDS", 5)
    monkeypatch.setattr(writer, "CHECKPOINT_SECONDS", 60.0)
    with closing(open_log(tmp_path, log_url)) as log:
        asyncio.run(record_all(log, range(1, RECORDS + 1)))
    engines = open_engines(log_url)
    yield Written(engines[0], tmp_path)
    for engine in engines:
        engine.dispose()


def at(sequence: int) -> sa.ColumnElement[bool]:
    return records.c.sequence == sequence


def test_an_untouched_log_verifies(written: Written) -> None:
    """All records are chained and signed, the last one too once the writer has closed."""
    found = written.verify()

    assert ((), 1, RECORDS, 0) == (found.problems, found.chains, found.records, found.unsigned)
    assert found.checkpoints == 7  # at the beginning, after every five, at the end


@pytest.mark.parametrize("column", [column.name for column in records.columns if column.name != "hash"])
def test_an_edited_column_is_found_at_its_record(written: Written, column: str) -> None:
    """Whatever is changed in a record, its number is told."""
    value: Any = {sa.Integer: 7, sa.BigInteger: 99, sa.LargeBinary: b"\0"}.get(type(records.c[column].type), "f" * 16)
    written.change(lambda db: db.execute(sa.update(records).where(at(12)).values({column: value})))

    assert "12" in " ".join(written.problems())


def test_an_edit_with_a_new_hash_is_found_by_the_record_after_it(written: Written) -> None:
    """Who computes the hash of the edited record anew breaks the chain."""

    def edit(db: Connection) -> None:
        row = dict(db.execute(sa.select(records).where(at(12))).mappings().one())
        row["decision"] = "REJECTED"
        row["hash"] = record_hash(row)
        db.execute(sa.update(records).where(at(12)).values(row))

    written.change(edit)

    assert ["record 13 (" + f"{13:032x}" + ") does not follow from record 12"] == written.problems()


def test_a_deleted_record_is_found(written: Written) -> None:
    """The gap is told."""
    written.change(lambda db: db.execute(sa.delete(records).where(records.c.sequence.between(7, 9))))

    assert ["lacks records 7 to 9"] == written.problems()


def test_swapped_records_are_found(written: Written) -> None:
    """Two records that change places no longer follow."""

    def swap(db: Connection) -> None:
        for old, new in ((7, 999), (8, 7), (999, 8)):
            db.execute(sa.update(records).where(at(old)).values(sequence=new))

    written.change(swap)

    problems = " ".join(written.problems())
    assert "record 7 " in problems
    assert "record 8 " in problems


@pytest.mark.parametrize("left", [0, 1, 20, 24])
def test_a_cut_end_is_found(written: Written, left: int) -> None:
    """A chain that breaks off after an intact record disagrees with what was signed."""
    written.change(lambda db: db.execute(sa.delete(records).where(records.c.sequence > left)))

    missing = "record 25" if left == 24 else f"records {left + 1} to 25"
    assert [f"lacks {missing}: its end was cut off"] == written.problems()


def rewrite(db: Connection, since: int) -> None:
    previous = db.execute(sa.select(records.c.hash).where(at(since - 1))).scalar() or ""
    for row in db.execute(
        sa.select(records).where(records.c.sequence >= since).order_by(records.c.sequence)
    ).mappings():
        changed = {**row, "previous": previous, "decision": "APPROVED" if row["sequence"] > since else "REJECTED"}
        previous = changed["hash"] = record_hash(changed)
        db.execute(sa.update(records).where(at(row["sequence"])).values(changed))


@pytest.mark.parametrize(("since", "told"), [(1, "records 1 to 5"), (13, "records 11 to 15")])
def test_a_rewritten_chain_is_found_by_its_checkpoints(written: Written, since: int, told: str) -> None:
    """A chain computed anew is whole in itself, yet not what was signed; the first wrong stretch is told."""
    written.change(lambda db: rewrite(db, since))

    assert f"{told} were computed anew: the checkpoint at {told.split()[-1]} has another hash" == written.problems()[0]


def test_records_added_to_a_closed_chain_are_found(written: Written) -> None:
    """A well-made record after the end was never written by us."""

    def add(db: Connection) -> None:
        row = dict(db.execute(sa.select(records).where(at(25))).mappings().one())
        row |= {"sequence": 26, "record_id": "e" * 32, "previous": row["hash"]}
        db.execute(sa.insert(records), {**row, "hash": record_hash(row)})

    written.change(add)

    assert "has 1 records after its last checkpoint" in written.problems()[0]


def test_a_forged_chain_is_found(written: Written) -> None:
    """A chain that no checkpoint names was not begun by the service."""

    def add(db: Connection) -> None:
        row = dict(db.execute(sa.select(records).where(at(1))).mappings().one())
        row |= {"chain": "f" * 32, "record_id": "e" * 32}
        db.execute(sa.insert(records), {**row, "hash": record_hash(row)})

    written.change(add)

    assert written.problems() == ["is in no checkpoint: it was added, or the checkpoints were removed"]


@pytest.mark.parametrize("line", [0, 3, 6])
def test_a_changed_checkpoint_is_found(written: Written, line: int) -> None:
    """The signature is over every field."""
    lines = written.checkpoints.read_bytes().splitlines()
    lines[line] = json.dumps({**json.loads(lines[line]), "sequence": 1}).encode()
    written.checkpoints.write_bytes(b"\n".join(lines) + b"\n")

    assert any(f"line {line + 1} bears a signature" in problem for problem in written.verify().problems)


def test_a_removed_checkpoint_is_found(written: Written) -> None:
    """The lines of the file are chained too."""
    lines = written.checkpoints.read_bytes().splitlines(keepends=True)
    written.checkpoints.write_bytes(b"".join(lines[:2] + lines[3:]))

    assert ("checkpoints.jsonl line 3 does not follow from the line before",) == written.verify().problems


def test_a_removed_checkpoint_file_is_found(written: Written) -> None:
    """Without checkpoints nothing vouches for the chain."""
    written.checkpoints.unlink()

    assert ["is in no checkpoint: it was added, or the checkpoints were removed"] == written.problems()


def test_a_copy_of_the_checkpoints_finds_what_was_cut_from_both(written: Written) -> None:
    """Database and file cut together agree with each other, but not with a copy kept elsewhere."""
    copy = written.checkpoints.read_bytes()
    written.change(lambda db: db.execute(sa.delete(records).where(records.c.sequence > 10)))
    written.checkpoints.write_bytes(b"".join(copy.splitlines(keepends=True)[:3]))
    assert () == written.verify().problems

    written.checkpoints.write_bytes(copy)

    assert ["lacks records 11 to 25: its end was cut off"] == written.problems()


def test_a_removed_customer_key_is_found(written: Written) -> None:
    """Making decisions unreadable without an erasure is tampering."""
    written.change(lambda db: db.execute(sa.delete(customer_keys)))

    assert RECORDS == sum("cannot be read" in problem for problem in written.problems())


def test_a_key_shredded_behind_the_logs_back_is_found(written: Written) -> None:
    """An erasure that no chain holds was nobody's decision."""
    written.change(lambda db: db.execute(sa.update(customer_keys).values(wrapped=None)))

    assert written.problems() == ["key 1 was shredded, but no chain holds the erasure"]


def of_key(number: int, **values: Any) -> Callable[[Connection], Any]:
    """A change of one of the only customer's keys."""
    return lambda db: db.execute(sa.update(customer_keys).where(customer_keys.c.number == number).values(values))


@pytest.fixture
def restricted(log_url: str, tmp_path: Path) -> Iterator[Written]:
    """A log of a customer whose key 1 was shredded, whose key 2 is restricted, and whose key 3 is in use."""
    with closing(open_log(tmp_path, log_url)) as log:
        for number in (1, 2, 3):
            asyncio.run(log.record(numbered(number)))
            if number < 3:
                eraser = Eraser(log, "loans", retention_days=9, by="person:officer", clock=lambda: NOON)
                asyncio.run(eraser.erase("customer-1", at_once=number == 1))
    engine = open_reader(log_url)
    yield Written(engine, tmp_path)
    engine.dispose()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (of_key(1, wrapped=b"\0" * 60), "key 1 was put back after its erasure"),
        (of_key(1, erased_at="2026-01-01T00:00:00.000000Z"), "key 1 was shredded at another time"),
        (of_key(2, wrapped=b"\0" * 60), "key 2 was changed: it cannot be unwrapped"),
        (of_key(2, wrapped=None), "key 2 was shredded, but no chain holds the erasure"),
        (of_key(2, restricted_at=None, erase_after=None), "key 2 was restricted, and its restriction was removed"),
        (of_key(2, erase_after="2099-01-01T00:00:00.000000Z"), "key 2 is to be erased at another time"),
        (of_key(3, wrapped=b"\0" * 60), "key 3 was changed: it cannot be unwrapped"),
        (of_key(3, restricted_at="2026-03-02T12:00:00.000000Z"), "key 3 is restricted, but no chain holds"),
        (of_key(3, wrapped=None, erased_at="2026-03-02T12:00:00.000000Z"), "key 3 was shredded, but no chain holds"),
        (of_key(3, erase_after="2026-03-02T12:00:00.000000Z"), "key 3 is to be erased, but no chain holds"),
    ],
)
def test_an_edited_customer_key_is_found_at_its_number(
    restricted: Written, change: Callable[[Connection], Any], told: str
) -> None:
    """A key is in no chain itself, but what was done to it is, and the master key knows what it wrapped."""
    assert () == restricted.verify().problems
    restricted.change(change)

    assert told in " ".join(restricted.problems())


def test_keys_of_another_master_key_are_told_once(written: Written) -> None:
    """A wrong key in the settings is not a thousand changed ones."""
    (written.folder / "master.key").write_text("ab" * 32)

    assert ["no key was unwrapped"] == [problem.split(": ")[-1] for problem in written.verify().problems]


@pytest.mark.parametrize("sql", ["'abc'", "x'00'", "CAST(x'ff' AS TEXT)", "1.5"])
@pytest.mark.parametrize("column", [column.name for column in records.columns])
def test_a_value_of_another_type_is_found_at_its_record(tmp_path: Path, column: str, sql: str) -> None:
    """SQLite keeps anything in any column; the records after it are verified all the same."""
    with closing(open_log(tmp_path)) as log:
        asyncio.run(record_all(log, range(1, 4)))
    engine = open_reader(f"sqlite:///{tmp_path / 'decisions.sqlite'}")
    changed = Written(engine, tmp_path)
    changed.change(lambda db: db.exec_driver_sql(f"UPDATE records SET {column} = {sql} WHERE sequence = 2"))
    replayed = list(Replayer(RecordStore(engine, changed.master)).replay_all())

    problems = " ".join(changed.verify().problems)
    "".join(changed.verify().problems).encode()
    engine.dispose()
    assert f"{2:032x}" in problems if column != "record_id" else "record 2 (" in problems
    assert "was changed" in problems
    assert {f"{1:032x}", f"{3:032x}"} <= {one.record_id for one in replayed}


def test_a_checkpoint_of_brackets_is_found(written: Written) -> None:
    """However deep, it is a line that is no checkpoint."""
    with written.checkpoints.open("ab") as file:
        file.write(b"[" * 100_000 + b"\n")

    assert ("checkpoints.jsonl line 8 is no checkpoint",) == written.verify().problems


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


def test_the_migrations_make_the_tables_that_the_code_uses(written: Written) -> None:
    """Alembic finds no difference between the database and the schema."""
    with written.engine.connect() as connection:
        assert [] == compare_metadata(MigrationContext.configure(connection), metadata)


def test_opening_a_log_again_changes_nothing(written: Written, log_url: str) -> None:
    """Migrations run at every start."""
    open_log(written.folder, log_url).close()

    assert RECORDS == written.verify().records


def test_a_log_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    """Decisions that were kept in the clear are not mixed with these."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'decisions.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE decisions (sequence INTEGER)")

    with pytest.raises(LogUnavailableError, match="earlier version"):
        open_log(tmp_path)


def test_another_master_key_is_refused(written: Written, log_url: str) -> None:
    """A service with the wrong key would know no customer again."""
    (written.folder / "master.key").write_text("ab" * 32)

    with pytest.raises(LogUnavailableError, match="master key"):
        open_log(written.folder, log_url)
