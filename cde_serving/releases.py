"""The releases of one portfolio on disk: the promotion ledger, the bundles it names, and the evidence for them."""

from pathlib import Path

from cde_domain.clock import Clock, utc_now
from cde_domain.release import Bundle, BundleError, load_bundle
from cde_serving.experiments import ExperimentLog
from cde_serving.ledger import LedgerEntry, PromotionLedger
from cde_serving.operation import OperationLog
from cde_serving.signing import SigningKey

LEDGER = "ledger.jsonl"
BUNDLES = "bundles"
PUBLIC_KEY = "signing.pub"  # beside a ledger that is built into a bento


class RollbackError(ValueError):
    """A rollback that leads nowhere."""


class ReleaseStore:
    """
    A folder with `ledger.jsonl`, `bundles/<digest>/`, `evidence/<digest>/` and what people and measurements say.

    People sign `approvals/` and `attestations/`; measurements of the running service are in `operation.jsonl`, and who
    decides beside the champion in `experiments.jsonl`. Ledger, measurements and experiments are believed as far as a
    key in the PEM file `public_key` signed them.
    """

    def __init__(self, folder: Path, public_key: Path, *, portfolio: str | None = None, clock: Clock = utc_now) -> None:
        self.folder = folder
        self.bundles = folder / BUNDLES
        self.evidence = folder / "evidence"
        self.approvals = folder / "approvals"
        self.attestations = folder / "attestations"
        self.ledger = PromotionLedger(folder / LEDGER, public_key, portfolio=portfolio, clock=clock)
        self.experiments = ExperimentLog(folder, public_key, portfolio=portfolio, clock=clock)
        self.operation = OperationLog(folder, public_key, self.ledger, portfolio=portfolio)

    def current(self) -> Bundle | None:
        """
        The promoted bundle, verified and loaded; None before the first promotion.

        Raises:
            LedgerError: the ledger is damaged.
            BundleError: the bundle is not what the ledger names.
        """
        entry = self.ledger.current()
        return self.load(entry) if entry else None

    def load(self, entry: LedgerEntry) -> Bundle:
        """
        Load the bundle that an entry names.

        Raises:
            BundleError: the bundle cannot be verified, or is of another portfolio than the entry says.
        """
        return self.load_bundle(entry.bundle, entry.portfolio)

    def load_bundle(self, digest: str, portfolio: str) -> Bundle:
        """
        Load a bundle that was named for a portfolio.

        Raises:
            BundleError: it cannot be verified, or is of another portfolio.
        """
        bundle = load_bundle(self.bundles / digest, digest)
        if bundle.portfolio.name != portfolio:
            raise BundleError(f"bundle {digest[:12]} is of {bundle.portfolio.name}, but was promoted for {portfolio}")
        return bundle

    def named_bundles(self) -> set[str]:
        """
        The digests of all bundles that were ever promoted or in an experiment, and so may be loaded.

        Whoever can write a log of decisions, or a table made from it, must not choose which code runs: these logs are
        signed.

        Raises:
            LedgerError, ExperimentError: a log is damaged.
        """
        named = {entry.bundle for entry in self.ledger.entries()}
        for entry in self.experiments.entries():
            named |= {one.bundle for one in (entry.challenger, *entry.shadows) if one}
        return named

    def roll_back(self, to: str | None, *, key: SigningKey, by: str, reason: str = "") -> LedgerEntry:
        """
        Make an earlier champion current again: the one before the current one, or that whose digest starts with `to`.

        Raises:
            RollbackError: there is no such champion, or it is current already.
            BundleError: its bundle can no longer be verified.
            LedgerError: the ledger is damaged.
            LedgerConflictError: something was promoted at the same moment.
        """
        entries = self.ledger.entries()
        promoted = {entry.bundle: entry for entry in entries if entry.action == "promote"}  # the latest of each bundle
        if not entries:
            raise RollbackError("nothing was promoted yet")
        current = entries[-1].bundle
        target = self._earlier(promoted, current) if to is None else _chosen(promoted, to)
        if target == current:
            raise RollbackError(f"{target[:12]} is the champion already")
        earned = promoted[target]
        self.load(earned)
        return self.ledger.append(
            action="rollback",
            portfolio=earned.portfolio,
            bundle=target,
            expected_sequence=entries[-1].sequence,
            evidence=earned.evidence,
            by=by,
            key=key,
            notes=(reason,) if reason else (),
            details=earned.details,
        )

    @staticmethod
    def _earlier(promoted: dict[str, LedgerEntry], current: str) -> str:
        # What it was promoted over, not what was served last: two rollbacks lead back twice, and never forth.
        previous = promoted[current].previous
        if previous is None:
            later = ", ".join(bundle[:12] for bundle in promoted if bundle != current)
            way_out = (
                f"Name a later one with --to: {later}" if later else "Promote another model with train_and_release"
            )
            raise RollbackError(f"there is no champion before {current[:12]}, the first. {way_out}")
        return previous


def _chosen(promoted: dict[str, LedgerEntry], to: str) -> str:
    chosen = [bundle for bundle in promoted if bundle.startswith(to)]
    if len(chosen) != 1 or not to:
        known = ", ".join(bundle[:12] for bundle in promoted)
        raise RollbackError(f"{to!r} names {len(chosen)} of the bundles that were promoted: {known}")
    return chosen[0]


def store_to_serve(at_home: ReleaseStore, built_in: ReleaseStore) -> ReleaseStore:
    """
    The releases that a service follows: at home if anything was promoted there, else those built into the bento.

    With neither, home is followed until something is promoted. Asked once at start, so that a home wiped under a
    running service does not bring back the older model of the bento.
    """
    return built_in if built_in.ledger.path.exists() and not at_home.ledger.path.exists() else at_home
