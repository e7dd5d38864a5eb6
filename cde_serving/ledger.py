"""The promotion ledger: which bundle is served, since when, by whom and on what evidence."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from cde_domain.clock import Clock, utc_now
from cde_serving.signed_log import SignedEntry, SignedLog, SignedLogError
from cde_serving.signing import SigningKey

Action = Literal["promote", "rollback"]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class LedgerError(SignedLogError):
    """A ledger that was changed or damaged."""


class LedgerConflictError(RuntimeError):
    """Something was promoted or rolled back in the meantime."""


class LedgerEntry(SignedEntry):
    """
    One promotion or rollback.

    `previous` is the bundle that was current before, `evidence` the digest of the evidence pack.
    """

    at: str
    action: Action
    bundle: Digest
    previous: Digest | None
    evidence: Digest
    by: str
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)


class PromotionLedger:
    """Promotions and rollbacks as a `SignedLog`, in which each names the bundle that was current before it."""

    def __init__(self, path: Path, public_key: Path, *, portfolio: str | None = None, clock: Clock = utc_now) -> None:
        self.path = path
        self.public_key = public_key
        self._clock = clock
        self._log = SignedLog(
            path,
            public_key,
            "ledger entry",
            LedgerEntry,
            portfolio=portfolio,
            error=LedgerError,
            follows=_names_previous,
        )

    def entries(self) -> tuple[LedgerEntry, ...]:
        """
        All entries, oldest first.

        Raises:
            LedgerError: a line is damaged, not signed by a trusted key, or does not follow from the one before; the
                message gives its number.
        """
        return tuple(entry for entry, _ in self._log.verified())

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
        with self._log.locked():
            chain = self._log.verified()
            last = chain[-1][0] if chain else None
            if stale := conflict(last, expected_sequence):
                raise LedgerConflictError(stale)
            stated = {
                "at": self._clock().astimezone(UTC).isoformat().replace("+00:00", "Z"),
                "portfolio": portfolio,
                "action": action,
                "bundle": bundle,
                "previous": last.bundle if last else None,
                "evidence": evidence,
                "by": by,
                "notes": list(notes),
                "details": dict(details or {}),
            }
            return self._log.append(chain, stated, key)[0]


def _names_previous(entry: LedgerEntry, chain: list[tuple[LedgerEntry, str]]) -> None:
    if entry.previous != (chain[-1][0].bundle if chain else None):
        raise SignedLogError("names another previous bundle than the line before")


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
