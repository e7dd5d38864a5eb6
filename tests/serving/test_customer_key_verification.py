"""Tests for `cde_serving.records.verify`: what is done to customers' keys afterwards is found."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cde_serving.records.database import open_reader
from cde_serving.records.erasure import Eraser
from cde_serving.records.schema import customer_keys
from tests.serving.helpers import NOON, numbered, open_log
from tests.serving.written_log import RECORDS, Written


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
