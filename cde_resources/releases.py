"""The releases of a portfolio, and the keys by which promotions, evidence and approvals are believed."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Self

import dagster as dg
from pydantic import ValidationError

from cde_domain.governance.rulebook import Rulebook
from cde_resources.clock import opened_clock
from cde_serving.operation import Mark, Measured, OperationFactsError
from cde_serving.releases import ReleaseStore
from cde_serving.settings import Settings
from cde_serving.signing import SigningKey, TrustedKeys, open_signing_key


class ReleasesResource(dg.ConfigurableResource):
    """The home folder of one portfolio, the platform's two key files and the folder of the approvers' public keys."""

    portfolio: str
    home: str
    signing_key: str
    create_key: bool
    verify_key: str
    approver_keys: str
    clock_file: str | None = None

    @classmethod
    def of(cls, settings: Settings, portfolio: str) -> Self:
        """As the settings say; a key is generated only where they name none."""
        return cls(
            portfolio=portfolio,
            home=str(settings.portfolio_home(portfolio)),
            signing_key=str(settings.signing_key_file()),
            create_key=settings.signing_key is None,
            verify_key=str(settings.verify_key_file()),
            approver_keys=str(settings.approver_keys_folder()),
            clock_file=str(settings.clock_file) if settings.clock_file else None,
        )

    def store(self) -> ReleaseStore:
        """Ledger, bundles, evidence and approvals."""
        clock = opened_clock(self.clock_file)
        return ReleaseStore(Path(self.home), Path(self.verify_key), portfolio=self.portfolio, clock=clock)

    def signer(self) -> SigningKey:
        """
        The platform's private key.

        Raises:
            SignatureError: it cannot be read, or readers trust another one.
        """
        return open_signing_key(Path(self.signing_key), Path(self.verify_key), create=self.create_key)

    def trusted(self) -> TrustedKeys:
        """
        The platform's public keys.

        Raises:
            SignatureError: there is none yet.
        """
        return TrustedKeys.read(Path(self.verify_key))

    def platform_keys(self) -> TrustedKeys | None:
        """
        The platform's public keys, None before the first was made.

        Raises:
            SignatureError: the file holds something else.
        """
        return self.trusted() if Path(self.verify_key).exists() else None

    def measured(self, rulebook: Rulebook, marks: Iterable[Mark] = ()) -> Measured:
        """
        What was measured on the running service; `marks` are how far its log reached before.

        Every promotion kept such a mark in the ledger.

        Raises:
            OperationFactsError: the log cannot be believed, or is shorter than it was.
            LedgerError: the ledger is damaged.
        """
        store = self.store()
        kept = [entry.details["operation_log"] for entry in store.ledger.entries() if "operation_log" in entry.details]
        try:
            promoted = [Mark.model_validate(mark) for mark in kept]
        except ValidationError as error:
            raise OperationFactsError("the ledger holds a mark of operation.jsonl that is none") from error
        return store.operation.read(rulebook, now=self.now(), marks=[*promoted, *marks])

    def approvers(self) -> TrustedKeys:
        """
        The approvers' public keys.

        Raises:
            SignatureError: a file of the folder is no public key.
        """
        return TrustedKeys.read_folder(Path(self.approver_keys))

    def now(self) -> datetime:
        """The time."""
        return opened_clock(self.clock_file)()
