"""Follows the promotion ledger while the service runs, and swaps the served bundle."""

import threading
from collections.abc import Callable

import structlog

from cde_domain.clock import Clock, utc_now
from cde_domain.release import Bundle
from cde_serving.ledger import LedgerEntry
from cde_serving.releases import ReleaseStore
from cde_serving.warming import warm_bundle, warm_kernels

POLL_SECONDS = 0.25
RETRY_SECONDS = 2.0  # a bundle may arrive after the ledger that names it

log = structlog.get_logger()

Signature = tuple[int, int, int] | None


class NothingPromotedError(RuntimeError):
    """There is no bundle to decide with yet."""


class ReleaseFollower:
    """
    Holds the bundle that is served.

    A thread watches the ledger file; a newly promoted bundle is verified, loaded and warmed off the request path before
    the one reference `serving` changes. A bundle that cannot be served leaves the old one in place; `problem` says why.
    """

    def __init__(
        self, store: ReleaseStore, clock: Clock = utc_now, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self.store = store
        self.serving: Bundle | None = None
        self.entry: LedgerEntry | None = None
        self.problem: str | None = None
        self._clock = clock
        self._on_failure = on_failure
        self._seen: Signature = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="release-follower", daemon=True)

    def start(self) -> None:
        """Load what is promoted now, and follow the ledger from then on."""
        warm_kernels()
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        self._thread.join()

    def refresh(self) -> None:
        """Serve what the ledger names now, if it can be verified."""
        self._seen = self._signature()
        try:
            self._serve_current()
        except Exception as error:  # whatever a bundle's code raises, the bundle that is served stays
            self._failed(f"{type(error).__name__}: {error}")

    def _serve_current(self) -> None:
        entries = self.store.ledger.entries()
        if self.entry is not None and entries[self.entry.sequence - 1 : self.entry.sequence] != (self.entry,):
            self._failed("the ledger lost an entry that was served")  # cut short, or an older copy: both verify
            return
        if not entries:
            return
        entry = entries[-1]
        if self.serving is None or entry.bundle != self.serving.digest:
            bundle = self.store.load(entry)
            warm_bundle(bundle, self._clock)
            self.serving = bundle
            log.info("bundle served", portfolio=entry.portfolio, bundle=entry.bundle, action=entry.action)
        self.entry = entry
        self.problem = None

    def _failed(self, problem: str) -> None:
        if problem != self.problem:
            self._on_failure()
            log.error("promoted bundle cannot be served", problem=problem, still_serving=self._digest())
        self.problem = problem

    def _follow(self) -> None:
        waited = 0.0
        while not self._stop.wait(POLL_SECONDS):
            waited += POLL_SECONDS
            if self._signature() != self._seen or (self.problem and waited >= RETRY_SECONDS):
                waited = 0.0
                self.refresh()

    def _signature(self) -> Signature:
        try:
            stat = self.store.ledger.path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _digest(self) -> str | None:
        return self.serving.digest if self.serving else None
