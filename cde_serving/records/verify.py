"""Verifying the decision log: is every record the one that was written, and are they all there?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cde_serving.records.chain import FIRST, record_hash
from cde_serving.records.checkpoints import Checkpoint, by_chain, read_checkpoints
from cde_serving.records.schema import customer_keys, records
from cde_serving.records.writer import CHECKPOINT_RECORDS, LARGEST_COMMIT
from cde_serving.signing import TrustedKeys

ROWS_AT_ONCE = 1000
MOST_UNSIGNED = CHECKPOINT_RECORDS + LARGEST_COMMIT  # a chain never has more records after its last checkpoint


@dataclass(frozen=True)
class Verification:
    """
    What was found. `problems` say what is wrong and where.

    `unsigned` counts the records after the last checkpoint of their chain, which whoever can write the database could
    replace unnoticed: at most a second's of a running writer, or of one that was killed.
    """

    problems: tuple[str, ...]
    chains: int
    records: int
    checkpoints: int
    unsigned: int


def verify_log(engine: Engine, checkpoints: Path, trusted: TrustedKeys) -> Verification:
    """Verify all chains of a database against their signed checkpoints."""
    signed, problems = read_checkpoints(checkpoints, trusted)
    expected = by_chain(signed)
    found: dict[str, _Chain] = {}
    with engine.connect() as connection:
        for row in _rows(connection):
            chain = found.get(row["chain"])
            if chain is None:
                chain = found[row["chain"]] = _Chain(row["chain"], expected.get(row["chain"], []), problems)
            chain.follow(row)
        problems += _keys(connection)
    for name in expected.keys() - found.keys():
        found[name] = _Chain(name, expected[name], problems)
    unsigned = sum(chain.end() for chain in found.values())
    return Verification(
        problems=tuple(problems),
        chains=len(found),
        records=sum(chain.count for chain in found.values()),
        checkpoints=len(signed),
        unsigned=unsigned,
    )


class _Chain:
    """Follows one chain from its first record to its last."""

    def __init__(self, name: str, signed: list[Checkpoint], problems: list[str]) -> None:
        self.count = 0
        self._name = name
        self._signed = signed
        self._problems = problems
        self._sequence = 0
        self._hash = FIRST
        self._next = 0  # the first checkpoint that is still ahead
        self._agreed = 0  # how far the last checkpoint that agrees reaches
        if not signed:
            self._problem("is in no checkpoint: it was added, or the checkpoints were removed")

    def follow(self, row: Mapping[str, Any]) -> None:
        """Take in the next record."""
        self.count += 1
        sequence = row["sequence"]
        if sequence != self._sequence + 1:
            self._problem(f"lacks {_records(self._sequence + 1, sequence - 1)}")
        elif row["previous"] != self._hash:
            self._problem(f"record {sequence} ({row['record_id']}) does not follow from record {self._sequence}")
        try:
            actual = record_hash(row)
        except KeyError:
            actual = ""
        if actual != row["hash"]:
            self._problem(f"record {sequence} ({row['record_id']}) was changed")
        self._sequence = sequence
        self._hash = row["hash"]
        self._compare()

    def end(self) -> int:
        """Take in that there are no more records; return how many are after the last checkpoint."""
        if not self._signed:
            return self.count
        last = self._signed[-1]
        if last.sequence > self._sequence:
            self._problem(f"lacks {_records(self._sequence + 1, last.sequence)}: its end was cut off")
            return 0
        unsigned = self._sequence - last.sequence
        if unsigned > MOST_UNSIGNED or (last.closed and unsigned):
            self._problem(
                f"has {unsigned} records after its last checkpoint: checkpoints were removed, or records added"
            )
        return unsigned

    def _compare(self) -> None:
        while self._next < len(self._signed) and self._signed[self._next].sequence <= self._sequence:
            checkpoint = self._signed[self._next]
            self._next += 1
            if checkpoint.sequence not in (0, self._sequence):
                continue  # the record that it names is missing, which was told
            if checkpoint.sequence and checkpoint.hash != self._hash:
                told = _records(self._agreed + 1, self._sequence)
                self._problem(f"{told} were computed anew: the checkpoint at {self._sequence} has another hash")
            self._agreed = checkpoint.sequence

    def _problem(self, what: str) -> None:
        self._problems.append(f"chain {self._name[:12]} {what}")


def _records(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"


def _rows(connection: Connection) -> Iterator[Mapping[str, Any]]:
    query = sa.select(records).order_by(records.c.chain, records.c.sequence)
    for row in connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query):
        yield dict(row._mapping)


def _keys(connection: Connection) -> list[str]:
    """What is wrong with the customers' keys: every one is there, or its erasure is in a chain."""
    of_record = sa.and_(records.c.customer == customer_keys.c.customer, records.c.key_number == customer_keys.c.number)
    lost = (
        sa.select(records.c.chain, records.c.sequence, records.c.record_id)
        .join(customer_keys, of_record, isouter=True)
        .where(records.c.key_number.is_not(None), customer_keys.c.customer.is_(None))
    )
    noted = sa.select(records.c.customer).where(records.c.kind == "erasure")
    shredded = sa.select(customer_keys.c.customer, customer_keys.c.number).where(
        customer_keys.c.wrapped.is_(None), customer_keys.c.customer.not_in(noted)
    )
    return [
        f"chain {row.chain[:12]} record {row.sequence} ({row.record_id}) cannot be read: its customer's key was removed"
        for row in connection.execute(lost)
    ] + [
        f"customer {row.customer[:12]} key {row.number} was shredded, but no chain holds the erasure"
        for row in connection.execute(shredded)
    ]
