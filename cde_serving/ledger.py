"""The promotion ledger: which bundle is served, since when, by whom and on what evidence."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from cde_domain.clock import Clock, utc_now
from cde_domain.digests import json_digest
from cde_serving.signing import SignatureError, SigningKey, TrustedKeys

Action = Literal["promote", "rollback"]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class LedgerError(ValueError):
    """A ledger that was changed or damaged."""


class LedgerConflictError(RuntimeError):
    """Something was promoted or rolled back in the meantime."""


class LedgerEntry(BaseModel):
    """
    One promotion or rollback.

    `previous` is the bundle that was current before, `previous_entry` the digest of the line before ("" for the first),
    `evidence` the digest of the evidence pack. `signature` is over all other fields, by the key whose id is `key`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: int
    at: str
    portfolio: str
    action: Action
    bundle: Digest
    previous: Digest | None
    evidence: Digest
    by: str
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = {}
    previous_entry: str
    key: str
    signature: str


class PromotionLedger:
    """
    An append-only file of one JSON entry a line, each signed and carrying the SHA-256 of the one before.

    Only lines signed by a key in the PEM file `public_key` are believed. Chain and signature are taken over each line's
    JSON value as stored, so a field added to the entry later leaves old lines valid. With `portfolio`, the ledger of
    another portfolio is refused.
    A last line without its newline was cut off by a crash before `append` returned: nobody was told that it holds, so
    readers ignore it and the next append overwrites it.
    """

    def __init__(self, path: Path, public_key: Path, *, portfolio: str | None = None, clock: Clock = utc_now) -> None:
        self.path = path
        self.public_key = public_key
        self.portfolio = portfolio
        self._clock = clock

    def entries(self) -> tuple[LedgerEntry, ...]:
        """
        All entries, oldest first.

        Raises:
            LedgerError: a line is damaged, not signed by a trusted key, or does not follow from the one before; the
                message gives its number.
        """
        return tuple(entry for entry, _ in self._verified())

    def current(self) -> LedgerEntry | None:
        """The last entry, which names the bundle to serve; None before the first promotion."""
        entries = self.entries()
        return entries[-1] if entries else None

    def append(
        self,
        *,
        action: Action,
        portfolio: str,
        bundle: str,
        expected_sequence: int | None,
        by: str,
        evidence: str,
        key: SigningKey,
        notes: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
    ) -> LedgerEntry:
        """
        Make `bundle` current if entry `expected_sequence` (0: none) is still the last; return when that is durable.

        The number is a fencing token: unlike a bundle it never comes back, so whoever was compared with a champion that
        was replaced, and then rolled back to, is refused too. None is the number of no entry, and is always refused.

        Raises:
            LedgerConflictError: another entry is the last one.
            LedgerError: the ledger is damaged, or `key` is not one that its readers believe.
        """
        with self._locked():
            chain = self._verified()
            last = chain[-1][0] if chain else None
            if stale := conflict(last, expected_sequence):
                raise LedgerConflictError(stale)
            value: dict[str, Any] = {
                "sequence": len(chain) + 1,
                "at": self._clock().astimezone(UTC).isoformat().replace("+00:00", "Z"),
                "portfolio": portfolio,
                "action": action,
                "bundle": bundle,
                "previous": last.bundle if last else None,
                "evidence": evidence,
                "by": by,
                "notes": list(notes),
                "details": dict(details or {}),
                "previous_entry": chain[-1][1] if chain else "",
                "key": key.public.id,
            }
            value["signature"] = key.sign("ledger entry", value)
            entry = LedgerEntry.model_validate(value)
            if key.public.id not in self._trusted().keys:  # an entry that readers would refuse is never written
                raise LedgerError(f"the key {key.public.id} is not trusted for {self.path.name}")
            self._write(rfc8785.dumps(value) + b"\n")
            return entry

    def _verified(self) -> list[tuple[LedgerEntry, str]]:
        """The entries with the digests of their lines."""
        chain: list[tuple[LedgerEntry, str]] = []
        lines = self._lines()
        trusted = self._trusted() if lines else None
        for number, line in enumerate(lines, start=1):
            try:
                assert trusted is not None
                entry, digest = _read_line(line, trusted)
                self._follow(entry, chain)
            except LedgerError as error:
                raise LedgerError(f"{self.path.name} line {number} {error}") from error
            chain.append((entry, digest))
        return chain

    def _follow(self, entry: LedgerEntry, chain: list[tuple[LedgerEntry, str]]) -> None:
        """Refuse an entry that does not stand where it says."""
        before, digest_before = chain[-1] if chain else (None, "")
        if self.portfolio is not None and entry.portfolio != self.portfolio:
            raise LedgerError(f"is of the ledger of {entry.portfolio}")
        if entry.sequence != len(chain) + 1:
            raise LedgerError(f"has the sequence number {entry.sequence}")
        if entry.previous_entry != digest_before:
            raise LedgerError("does not follow from the line before")
        if entry.previous != (before.bundle if before else None):
            raise LedgerError("names another previous bundle than the line before")

    def _trusted(self) -> TrustedKeys:
        try:
            return TrustedKeys.read(self.public_key)
        except SignatureError as error:
            raise LedgerError(f"{self.path.name} cannot be verified: {error}") from error

    def _lines(self) -> list[bytes]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return content.split(b"\n")[:-1]  # what follows the last newline was never acknowledged

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield  # closing the file releases the lock

    def _write(self, line: bytes) -> None:
        end = sum(len(known) + 1 for known in self._lines())
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
            file.truncate(end)
            file.seek(end)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self.path.parent)


def conflict(last: LedgerEntry | None, expected_sequence: int | None) -> str | None:
    """Why an entry made with `expected_sequence` (0: none) in mind may not follow the last one; None if it may."""
    if expected_sequence == (last.sequence if last else 0):
        return None
    expected = {None: "no entry that could be read", 0: "an empty ledger"}.get(
        expected_sequence, f"entry {expected_sequence}"
    )
    found = (
        f"entry {last.sequence} is the last ({last.action} of {last.bundle[:12]})" if last else "the ledger is empty"
    )
    return f"expected {expected} to be the last, but {found}"


def _read_line(line: bytes, trusted: TrustedKeys) -> tuple[LedgerEntry, str]:
    """The entry of a line and the digest of the line, if a trusted key signed it."""
    try:
        value = json.loads(line)
        if isinstance(value, dict) and "signature" not in value:
            raise LedgerError("is not signed")
        entry = LedgerEntry.model_validate(value)
        digest = json_digest(value)
        trusted.verify("ledger entry", _signed(value), key=entry.key, signature=entry.signature)
    except (LedgerError, SignatureError) as error:
        raise LedgerError(str(error)) from error
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) or "entry" for problem in error.errors())
        raise LedgerError(f"is no entry: {fields}") from error
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"is damaged: {error}") from error
    return entry, digest


def _signed(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: field for name, field in value.items() if name != "signature"}


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable, which syncing the file alone does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
