"""Tests for `cde_serving.records.verify`: what is changed afterwards is found and located."""

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cde_serving.records.chain import record_hash
from cde_serving.records.database import open_reader
from cde_serving.records.replay import Replayer
from cde_serving.records.schema import records
from cde_serving.records.store import RecordStore
from tests.serving.helpers import open_log
from tests.serving.written_log import RECORDS, Written, at, record_all


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
