"""Append-only logs of signed JSON lines: what was once written is neither changed nor left out unnoticed."""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import rfc8785
from pydantic import BaseModel, ConfigDict, ValidationError

from cde_domain.digests import sha256_of
from cde_serving.signing import Kind, SignatureError, SigningKey, TrustedKeys, read_signed


class SignedLogError(ValueError):
    """A log that was changed or damaged."""


class SignedEntry(BaseModel):
    """
    What every line has.

    `previous_entry` is the digest of the line before ("" for the first); `signature` is over all other fields, by the
    key whose id is `key`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sequence: int
    portfolio: str
    previous_entry: str
    key: str
    signature: str


Entry = TypeVar("Entry", bound=SignedEntry)


class SignedLog(Generic[Entry]):
    """
    An append-only file of one JSON entry a line, each signed and carrying the SHA-256 of the one before.

    Only lines signed by a key in the PEM file `public_key` are believed. Chain and signature are taken over each line's
    bytes as stored, so a field added to the entry later leaves old lines valid. With `portfolio`, the log of another
    portfolio is refused; `follows` refuses an entry that cannot stand behind those before it.
    A last line without its newline was cut off by a crash before `append` returned: nobody was told that it holds, so
    readers ignore it and the next append overwrites it.
    """

    def __init__(
        self,
        path: Path,
        public_key: Path,
        kind: Kind,
        entry: type[Entry],
        *,
        portfolio: str | None = None,
        error: type[SignedLogError] = SignedLogError,
        follows: Callable[[Entry, list[tuple[Entry, str]]], None] = lambda entry, chain: None,
    ) -> None:
        self.path = path
        self.public_key = public_key
        self.portfolio = portfolio
        self._kind: Kind = kind
        self._entry = entry
        self._error = error
        self._follows = follows

    def verified(self) -> list[tuple[Entry, str]]:
        """
        The entries, oldest first, with the digests of their lines.

        Raises:
            SignedLogError: a line is damaged, not signed by a trusted key, or does not follow from the one before; the
                message gives its number.
        """
        chain: list[tuple[Entry, str]] = []
        lines = self._lines()
        if not lines:
            return chain
        trusted = self.trusted()
        for number, line in enumerate(lines, start=1):
            try:
                entry = self._read_line(line, trusted)
                self._follow(entry, chain)
            except SignedLogError as error:
                raise self._error(f"{self.path.name} line {number} {error}") from error
            chain.append((entry, sha256_of(line)))
        return chain

    def append(self, chain: list[tuple[Entry, str]], stated: Mapping[str, Any], key: SigningKey) -> tuple[Entry, str]:
        """
        Sign an entry behind `chain`, which was read under the same lock; return when it is durable, with its digest.

        Raises:
            SignedLogError: `key` is not one that readers believe, or the entry cannot follow.
        """
        value = {
            **stated,
            "sequence": len(chain) + 1,
            "previous_entry": chain[-1][1] if chain else "",
            "key": key.public.id,
        }
        value["signature"] = key.sign(self._kind, value)
        if key.public.id not in self.trusted().keys:  # an entry that readers would refuse is never written
            raise self._error(f"the key {key.public.id} is not trusted for {self.path.name}")
        line = rfc8785.dumps(value)
        try:
            entry = read_signed(line, self._entry, form=rfc8785.dumps)
            self._follow(entry, chain)
        except SignedLogError as error:
            raise self._error(f"an entry of {self.path.name} {error}") from error
        self._write(line + b"\n")
        return entry, sha256_of(line)

    def trusted(self) -> TrustedKeys:
        """
        The keys whose lines are believed.

        Raises:
            SignedLogError: there is no public key.
        """
        try:
            return TrustedKeys.read(self.public_key)
        except SignatureError as error:
            raise self._error(f"{self.path.name} cannot be verified: {error}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield  # closing the file releases the lock

    def _read_line(self, line: bytes, trusted: TrustedKeys) -> Entry:
        try:
            entry = read_signed(line, self._entry, form=rfc8785.dumps)
            value = entry.model_dump(mode="json", exclude_unset=True)
            del value["signature"]
            trusted.verify(self._kind, value, key=entry.key, signature=entry.signature)
        except SignatureError as error:
            raise SignedLogError(str(error)) from error
        except ValidationError as error:
            problems = error.errors()
            if any(problem["loc"] == ("signature",) and problem["type"] == "missing" for problem in problems):
                raise SignedLogError("is not signed") from error
            fields = ", ".join(".".join(map(str, problem["loc"])) or "entry" for problem in problems)
            raise SignedLogError(f"is no entry: {fields}") from error
        except (ValueError, RecursionError) as error:
            raise SignedLogError(f"is damaged: {error}") from error
        return entry

    def _follow(self, entry: Entry, chain: list[tuple[Entry, str]]) -> None:
        """Refuse an entry that does not stand where it says."""
        if self.portfolio is not None and entry.portfolio != self.portfolio:
            raise SignedLogError(f"is of the {self.path.stem} of {entry.portfolio}")
        if entry.sequence != len(chain) + 1:
            raise SignedLogError(f"has the sequence number {entry.sequence}")
        if entry.previous_entry != (chain[-1][1] if chain else ""):
            raise SignedLogError("does not follow from the line before")
        self._follows(entry, chain)

    def _lines(self) -> list[bytes]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error(f"{self.path.name} cannot be read: {error}") from error
        return content.split(b"\n")[:-1]  # what follows the last newline was never acknowledged

    def _write(self, line: bytes) -> None:
        end = sum(len(known) + 1 for known in self._lines())
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
            file.truncate(end)
            file.seek(end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self.path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable, which syncing the file alone does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
