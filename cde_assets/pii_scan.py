"""Looking for personal values where they must not be: files of any kind, databases and compressed files looked into."""

import base64
import gzip
import json
import re
import sqlite3
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SQLITE = b"SQLite format 3\0"
ROWS_AT_ONCE = 2000
_FRACTION = re.compile(r"\d+\.\d*[1-9]")
SHORTEST = 6  # a shorter value is found by chance, in digests and pictures


@dataclass(frozen=True)
class Hit:
    """A personal value in a file: of which field and in which form, never the value itself."""

    file: str
    field: str
    form: str


def forms_of(value: str) -> dict[str, bytes]:
    """How a value can be written down: plain, in UTF-16, hexadecimal, base64 at any offset, escaped, as a double."""
    plain = value.encode()
    forms = {
        "plain": plain,
        "utf-16": value.encode("utf-16-le"),
        "hexadecimal": plain.hex().encode(),
        "HEXADECIMAL": plain.hex().upper().encode(),
        "url": quote(value, safe="").encode(),
        "json": json.dumps(value)[1:-1].encode(),
    }
    if _FRACTION.fullmatch(value):  # whole numbers have many zero bytes, and so has every file
        forms |= {"double": struct.pack("<d", float(value)), "DOUBLE": struct.pack(">d", float(value))}
    for offset in range(3):
        # Three bytes become four characters; those at the ends also hold bits of what stands beside the value.
        start, end = (-offset) % 3, len(plain)
        whole = base64.b64encode(plain[start : end - (end - start) % 3])
        if len(whole) >= SHORTEST:
            forms[f"base64 at {offset}"] = whole
            forms[f"base64url at {offset}"] = whole.translate(bytes.maketrans(b"+/", b"-_"))
    return {form: written for form, written in forms.items() if form == "plain" or written != plain}


class Scanner:
    """
    Finds values, given by the name of their field, in any of their forms.

    Raises:
        ValueError: a value is so short that it would be found by chance.
    """

    def __init__(self, values: Iterable[tuple[str, str]]) -> None:
        self._wanted = [
            (field, form, written) for field, value in set(values) for form, written in forms_of(value).items()
        ]
        if short := sorted(
            {field for field, form, written in self._wanted if form == "plain" and len(written) < SHORTEST}
        ):
            raise ValueError(f"values of {', '.join(short)} have fewer than {SHORTEST} characters")

    def of_bytes(self, content: bytes, name: str) -> list[Hit]:
        """What is found in bytes that bear a name."""
        return [Hit(name, field, form) for field, form, written in self._wanted if written in content]

    def of_files(self, folder: Path, spared: Mapping[str, str]) -> list[Hit]:
        """What is found below a folder, but for the files (glob patterns) that are declared, each with its reason."""
        declared = {path for pattern in spared for path in folder.glob(pattern)}
        hits = []
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path not in declared:
                name = path.relative_to(folder).as_posix()
                found = {hit for content in _contents(path) for hit in self.of_bytes(content, name)}
                hits += sorted(found, key=lambda hit: (hit.field, hit.form))
        return hits


def _contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what is in it if it is a database or compressed."""
    content = path.read_bytes()
    yield content
    if content.startswith(SQLITE):
        yield from _cells(path)  # a value may lie in two pages of the file
    elif content.startswith(b"\x1f\x8b"):
        yield gzip.decompress(content)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                yield archive.read(member)


def _cells(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.text_factory = bytes
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            quoted = table.decode().replace('"', '""')
            rows = database.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608  # the database's own names
            while chunk := rows.fetchmany(ROWS_AT_ONCE):
                yield b"\n".join(
                    cell if isinstance(cell, bytes) else str(cell).encode() for row in chunk for cell in row
                )
