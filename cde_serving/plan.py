"""Follows the log of experiments while the service runs: which loaded bundle decides for which customer."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from cde_domain.clock import Clock, utc_now
from cde_domain.decisions.variants import Variant, assigned
from cde_domain.release import Bundle
from cde_serving.experiments import ExperimentEntry
from cde_serving.releases import ReleaseStore
from cde_serving.warming import warm_bundle
from cde_serving.watched import Watched

POLL_SECONDS = 0.25
RETRY_SECONDS = 2.0  # a bundle may arrive after the entry that names it

log = structlog.get_logger()

Signature = tuple[int, int, int] | None


@dataclass(frozen=True)
class Plan:
    """Who decides beside the champion at one moment; with a `problem` nobody does."""

    experiment: str | None = None
    weight: float = 0.0
    challenger: Bundle | None = None
    shadows: tuple[Bundle, ...] = ()
    problem: str | None = None

    def for_customer(self, customer: str, champion: Bundle) -> tuple[Variant, Bundle]:
        """The variant and the bundle that decide for a customer, given by token."""
        challenger = self.challenger
        if (
            self.experiment is None
            or challenger is None
            or challenger.digest == champion.digest  # promoted meanwhile: there is nothing to compare
            or assigned(customer, self.experiment, self.weight) is Variant.CHAMPION
        ):
            return Variant.CHAMPION, champion
        return Variant.CHALLENGER, challenger


CHAMPION_ALONE = Plan()


class PlanFollower:
    """
    Holds the plan that is in force.

    A changed log is verified, and new bundles are verified, loaded and warmed, before the one reference `plan` changes.
    In doubt (a damaged or shortened log, a bundle that cannot be verified) the champion decides alone, as it would
    after a restart.
    """

    def __init__(
        self, store: ReleaseStore, clock: Clock = utc_now, on_failure: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._clock = clock
        self._on_failure = on_failure
        self._seen: Signature = None
        self._last: ExperimentEntry | None = None
        self._plan = CHAMPION_ALONE
        self._planned_at = 0.0
        self._watched = Watched("experiment", self._follow, POLL_SECONDS)

    @property
    def plan(self) -> Plan:
        """The plan of the moment; a request takes it once."""
        return self._watched.value

    def close(self) -> None:
        """Stop following."""
        self._watched.close()

    def _follow(self) -> Plan:
        signature = self._signature()
        again = self._plan.problem and time.monotonic() - self._planned_at >= RETRY_SECONDS
        if signature != self._seen or again:
            self._seen = signature
            self._planned_at = time.monotonic()
            self._replace(self._read())
        return self._plan

    def _replace(self, plan: Plan) -> None:
        if plan.problem and plan.problem != self._plan.problem:
            self._on_failure()
            log.error("experiment cannot be run: the champion decides alone", problem=plan.problem)
        elif not plan.problem:
            log.info(
                "experiment followed",
                experiment=plan.experiment,
                weight=plan.weight,
                challenger=plan.challenger.digest if plan.challenger else None,
                shadows=[shadow.digest for shadow in plan.shadows],
            )
        self._plan = plan

    def _read(self) -> Plan:
        try:
            entries = self._store.experiments.entries()
            if self._last is not None and entries[self._last.sequence - 1 : self._last.sequence] != (self._last,):
                return Plan(problem="the log of experiments lost an entry that was followed")
            plan = self._plan_of(entries[-1]) if entries and entries[-1].running else CHAMPION_ALONE
            self._last = entries[-1] if entries else None
        except Exception as error:  # whatever a bundle's code raises, the champion goes on
            return Plan(problem=f"{type(error).__name__}: {error}")
        return plan

    def _plan_of(self, entry: ExperimentEntry) -> Plan:
        return Plan(
            experiment=entry.experiment,
            weight=entry.weight,
            challenger=self._bundle(entry.challenger.bundle, entry) if entry.challenger else None,
            shadows=tuple(self._bundle(shadow.bundle, entry) for shadow in entry.shadows),
        )

    def _bundle(self, digest: str, entry: ExperimentEntry) -> Bundle:
        for known in (self._plan.challenger, *self._plan.shadows):
            if known is not None and known.digest == digest:
                return known
        bundle = self._store.load_bundle(digest, entry.portfolio)
        warm_bundle(bundle, self._clock)
        return bundle

    def _signature(self) -> Signature:
        try:
            stat = self._store.experiments.path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns
