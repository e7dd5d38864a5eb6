"""The releases of one portfolio on disk: the promotion ledger beside the bundles it names."""

from pathlib import Path

from cde_domain.release import Bundle, BundleError, load_bundle
from cde_serving.ledger import LedgerEntry, PromotionLedger

LEDGER = "ledger.jsonl"
BUNDLES = "bundles"


class ReleaseStore:
    """A folder with `ledger.jsonl` and `bundles/<digest>/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundles = folder / BUNDLES
        self.ledger = PromotionLedger(folder / LEDGER)

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
        bundle = load_bundle(self.bundles / entry.bundle, entry.bundle)
        if bundle.portfolio.name != entry.portfolio:
            raise BundleError(
                f"bundle {entry.bundle[:12]} is of {bundle.portfolio.name}, but was promoted for {entry.portfolio}"
            )
        return bundle


def store_to_serve(home: Path, baked: Path) -> ReleaseStore:
    """
    The releases that a service follows: under `home` if anything was promoted there, else those built into the bento.

    With neither, `home` is followed until something is promoted. Asked once at start, so that a `home` wiped under a
    running service does not bring back the older model of the bento.
    """
    at_home = ReleaseStore(home)
    built_in = ReleaseStore(baked)
    return built_in if built_in.ledger.path.exists() and not at_home.ledger.path.exists() else at_home
