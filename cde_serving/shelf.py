"""The bundles that decided before: found by the digest in a record, verified, kept for the next who asks."""

import threading
from collections import OrderedDict

from cde_domain.release import Bundle, BundleError, load_bundle
from cde_serving.follower import ReleaseFollower
from cde_serving.signed_log import SignedLogError

KEPT = 4


class RetiredBundleError(LookupError):
    """The bundle that decided is not here any more."""


class BundleShelf:
    """Bundles that were promoted or in an experiment, the served one and retired ones alike."""

    def __init__(self, releases: ReleaseFollower) -> None:
        self._releases = releases
        self._known: OrderedDict[str, Bundle] = OrderedDict()  # the last asked for at the end
        self._lock = threading.Lock()

    def get(self, digest: str) -> Bundle:
        """
        The bundle of a digest; to be called from a thread, since it may be read from disk.

        Raises:
            RetiredBundleError: no signed log names it, or its files are not here any more.
        """
        serving = self._releases.serving
        if serving is not None and serving.digest == digest:
            return serving
        with self._lock:
            if digest not in self._known:
                self._known[digest] = self._load(digest)
            self._known.move_to_end(digest)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
            return self._known[digest]

    def _load(self, digest: str) -> Bundle:
        store = self._releases.store
        try:
            promoted = {entry.bundle for entry in store.ledger.entries()}
            if digest not in promoted and digest not in store.named_bundles():
                raise RetiredBundleError(f"the bundle {digest[:12]} was neither promoted nor in an experiment here")
            return load_bundle(store.bundles / digest, digest)
        except (BundleError, SignedLogError) as error:
            raise RetiredBundleError(f"the bundle {digest[:12]} that decided is not here any more") from error
