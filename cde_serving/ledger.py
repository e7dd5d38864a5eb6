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
    """Another bundle was promoted in the meantime."""


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
        expected_previous: str | None,
        by: str,
        evidence: str,
        key: SigningKey,
        notes: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
    ) -> LedgerEntry:
        """
        Make `bundle` the current one if `expected_previous` (None: no bundle) still is; return when that is durable.

        Raises:
            LedgerConflictError: another bundle is current.
            LedgerError: the ledger is damaged, or `key` is not one that its readers believe.
        """
        with self._log.locked():
            chain = self._log.verified()
            current = chain[-1][0].bundle if chain else None
            if current != expected_previous:
                raise LedgerConflictError(
                    f"expected {_short(expected_previous)} to be promoted, but {_short(current)} is"
                )
            stated = {
                "at": self._clock().astimezone(UTC).isoformat().replace("+00:00", "Z"),
                "portfolio": portfolio,
                "action": action,
                "bundle": bundle,
                "previous": current,
                "evidence": evidence,
                "by": by,
                "notes": list(notes),
                "details": dict(details or {}),
            }
            return self._log.append(chain, stated, key)[0]


def _names_previous(entry: LedgerEntry, chain: list[tuple[LedgerEntry, str]]) -> None:
    if entry.previous != (chain[-1][0].bundle if chain else None):
        raise SignedLogError("names another previous bundle than the line before")


def _short(bundle: str | None) -> str:
    return bundle[:12] if bundle else "nothing"
