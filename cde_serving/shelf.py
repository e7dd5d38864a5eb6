"""The bundles that decided before: found by the digest in a record, verified, kept for the next who asks."""

from collections import OrderedDict

from cde_domain.release import Bundle, BundleError, load_bundle
from cde_serving.follower import ReleaseFollower
from cde_serving.ledger import LedgerError

KEPT = 4


class RetiredBundleError(LookupError):
    """The bundle that decided is not here any more."""


class BundleShelf:
    """Bundles of the ledger, the served one and retired ones alike."""

    def __init__(self, releases: ReleaseFollower) -> None:
        self._releases = releases
        self._known: OrderedDict[str, Bundle] = OrderedDict()

    def get(self, digest: str) -> Bundle:
        """
        The bundle of a digest; to be called from a thread, since it may be read from disk.

        Raises:
            RetiredBundleError: it was never promoted here, or its files are not here any more.
        """
        serving = self._releases.serving
        if serving is not None and serving.digest == digest:
            return serving
        known = self._known.get(digest)
        if known is None:
            known = self._known[digest] = self._load(digest)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known

    def _load(self, digest: str) -> Bundle:
        store = self._releases.store
        try:
            # Whoever can write the log must not choose what code runs here: the ledger is signed.
            promoted = any(entry.bundle == digest for entry in store.ledger.entries())
            if not promoted:
                raise RetiredBundleError(f"the bundle {digest[:12]} was never promoted here")
            return load_bundle(store.bundles / digest, digest)
        except (BundleError, LedgerError) as error:
            raise RetiredBundleError(f"the bundle {digest[:12]} that decided is not here any more") from error
