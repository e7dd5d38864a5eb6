"""Verifying the decision log: is every record the one that was written, and are they all there?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cde_serving.records.chain import FIRST, record_hash
from cde_serving.records.checkpoints import Checkpoint, by_chain, read_checkpoints
from cde_serving.records.raw import raw_reader, raw_rows, shown
from cde_serving.records.schema import records
from cde_serving.records.vault import MasterKey
from cde_serving.records.verify_keys import KeyEvents, key_problems
from cde_serving.records.writer import CHECKPOINT_RECORDS, LARGEST_COMMIT
from cde_serving.signing import TrustedKeys

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


def verify_log(
    engine: Engine, checkpoints: Path, trusted: TrustedKeys, master: MasterKey | None = None
) -> Verification:
    """
    Verify all chains of a database against their signed checkpoints, and the customers' keys against the chains.

    Without the master key it stays open whether the customers' keys can be unwrapped.
    """
    signed, problems = read_checkpoints(checkpoints, trusted)
    expected = by_chain(signed)
    found: dict[str, _Chain] = {}
    events = KeyEvents()
    with raw_reader(engine) as connection:
        for row in raw_rows(connection, sa.select(records).order_by(records.c.chain, records.c.sequence)):
            events.take_in(row)
            chain = found.get(row["chain"])
            if chain is None:
                chain = found[row["chain"]] = _Chain(row["chain"], expected.get(row["chain"], []), problems)
            chain.follow(row)
        problems += key_problems(connection, events, master)
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
        place = f"record {shown(sequence)} ({shown(row['record_id'])})"
        if not isinstance(sequence, int):
            self._problem(f"{place} was changed: its number is none")
            return
        if sequence != self._sequence + 1:
            self._problem(f"lacks {_records(self._sequence + 1, sequence - 1)}")
        elif row["previous"] != self._hash:
            self._problem(f"{place} does not follow from record {self._sequence}")
        try:
            actual = record_hash(row)
        except (KeyError, TypeError, ValueError, OverflowError):  # a column holds what its type cannot
            actual = ""
        if actual != row["hash"]:
            self._problem(f"{place} was changed")
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
        self._problems.append(f"chain {shown(self._name)[:12]} {what}")


def _records(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"
