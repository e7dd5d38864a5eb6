"""A decision log that was written and closed, and what somebody with its database's password could do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cde_serving.records.schema import records
from cde_serving.records.vault import MasterKey
from cde_serving.records.verify import Verification, verify_log
from cde_serving.signing import TrustedKeys
from tests.serving.helpers import numbered

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


def at(sequence: int) -> sa.ColumnElement[bool]:
    return records.c.sequence == sequence
