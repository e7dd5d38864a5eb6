"""The files of recorded days: each is replaced as a whole, and none keeps a customer who was erased meanwhile."""

import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from cde_assets.derived_rows import drop_rows_from

ROWS_AT_ONCE = 5000
NOTE = "cde."  # notes are metadata of the file, so that they are replaced together with what they are about
RECORDS, OUTCOME_RECORDS, LABELS = "records", "outcome_records", "labels"  # what the log and the labels files had


class DayFile:
    """
    Rows that become a Parquet file when all are written; until then the file is the one before, or none.

    `notes` are kept in the file: what the source had when it was read.
    """

    def __init__(self, path: Path, schema: pa.Schema, notes: Mapping[str, str]) -> None:
        self.rows = 0
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.unfinished")
        self._schema = schema.with_metadata({f"{NOTE}{name}": note for name, note in notes.items()})
        self._columns: dict[str, list[Any]] = {name: [] for name in schema.names}

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._unfinished, self._schema)
        return self

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; a column that it lacks is null."""
        for name, values in self._columns.items():
            values.append(row.get(name))
        self.rows += 1
        if self.rows % ROWS_AT_ONCE == 0:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                with self._unfinished.open("rb") as file:
                    os.fsync(file.fileno())
                self._unfinished.replace(self._path)
                _sync(self._path.parent)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pydict(self._columns, schema=self._schema))
        for values in self._columns.values():
            values.clear()


@contextmanager
def one_writer(home: Path) -> Iterator[None]:
    """
    Keep a second run from writing the same days, and clear away what a killed one left behind.

    The lock is the process's: it goes with it, however it ends.
    """
    folder = home / "decisions"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".writing", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in folder.glob("*/.*.unfinished"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)


def drop_erased(paths: Sequence[Path], gone: Callable[[], Collection[str]]) -> None:
    """
    Drop customers who were erased while files were written.

    An erasure is recorded before it looks for rows: whoever it missed in a file that was not there yet is known now.
    """
    customers = gone()
    for path in paths if customers else ():
        drop_rows_from(path, customers, _no_ids)


def notes_of(path: Path) -> Mapping[str, str]:
    """What was noted in a day's file; empty if there is none, or it cannot be read."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    return {
        name.decode().removeprefix(NOTE): note.decode()
        for name, note in metadata.items()
        if name.startswith(NOTE.encode())
    }


def _no_ids(tenant: str, customer_id: str) -> str:
    raise AssertionError("recorded days name customers by token")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
