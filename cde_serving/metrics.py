"""What Prometheus scrapes: bounded labels only, and nothing about a person."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from cde_domain.decisions.engine import DecidedBy, Decision, Routing
from cde_domain.decisions.policy import Outcome
from cde_domain.release import Bundle

if TYPE_CHECKING:
    from cde_serving.decision_log import DecisionLog
    from cde_serving.follower import ReleaseFollower

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COMMIT_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SCORES = tuple(round(0.05 * step, 2) for step in range(1, 21))

VARIANTS = frozenset(("champion", "challenger", "shadow"))
CHAMPION = "champion"
AUTH_FAILURES = frozenset(("key", "scope", "rate"))
SHADOW_FATES = ("recorded", "dropped", "failed")
LOOKUPS = ("fetched", "unavailable", "invalid", "breaker_open")
OTHER = "other"


class Metrics:
    """
    The counters of one service process, in a registry of their own.

    Each label has a short list of values: what is not on it counts as "other", so that no caller can make the page
    grow. What can be named beforehand is on the page from the start with 0: a counter that appears with its first count
    has no rate, and no alarm sees that count. What `.labels()` returns is kept, as looking it up costs more than
    counting.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("cde_http_requests", "Requests answered", "route", "method", "status")
        self._latency = self._histogram("cde_http_request_seconds", "Time to answer a request", SECONDS, "route")
        self._decisions = self._counter("cde_decisions", "Decisions answered", "decision", "decided_by", "variant")
        self._reasons = self._counter("cde_reason_codes", "Reason and routing codes answered", "code")
        self._fallbacks = self._counter(
            "cde_fallbacks", "Decisions left to a person, by routing code", "code", "variant"
        )
        self._scores = self._histogram("cde_score", "Scores answered", SCORES, "variant")
        self._decision_time = self._histogram(
            "cde_decision_seconds", "From the choice of the variant to the recorded decision", SECONDS, "variant"
        )
        self._load_failures = self._counter("cde_release_load_failures", "Promoted bundles that could not be served")
        self._replays = self._counter("cde_idempotency_replays", "Answers given again under the same key")
        self._auth_failures = self._counter("cde_auth_failures", "Requests not let in", "reason")
        self._commits = self._histogram("cde_commit_seconds", "Time of a commit of the log", COMMIT_SECONDS)
        self._damaged_keys = self._counter("cde_damaged_keys", "Customers and decisions whose key cannot be read")
        self._batches = self._histogram("cde_commit_records", "Records in a commit of the log", BATCHES)
        self._experiment_failures = self._counter("cde_experiment_failures", "Experiments that could not be run")
        self._shadows = self._counter("cde_shadow_decisions", "Shadow decisions", "fate")
        self._lookups = self._counter("cde_bureau_lookups", "Lookups at the bureau", "result")
        self._codes: dict[str, frozenset[str]] = {}  # champion and challenger take turns
        self._known: dict[tuple[Any, ...], Any] = {}
        ProcessCollector(registry=self._registry)
        self._begin()

    def _begin(self) -> None:
        for outcome in Outcome:
            for by in DecidedBy:
                if by is DecidedBy.MODEL or outcome is Outcome.MANUAL_REVIEW:
                    self._child(self._decisions, outcome.value, by.value, CHAMPION)
        self._child(self._decisions, Outcome.REJECTED.value, DecidedBy.RULE.value, CHAMPION)
        for metric, values in (
            (self._fallbacks, [(code.value, CHAMPION) for code in Routing]),
            (self._scores, [(CHAMPION,)]),
            (self._decision_time, [(CHAMPION,)]),
            (self._auth_failures, [(reason,) for reason in sorted(AUTH_FAILURES)]),
            (self._shadows, [(fate,) for fate in SHADOW_FATES]),
            (self._lookups, [(result,) for result in LOOKUPS]),
        ):
            for labels in values:
                self._child(metric, *labels)

    def watch(self, log: "DecisionLog", releases: "ReleaseFollower") -> None:
        """Ask these, at each scrape, how they are."""
        self._registry.register(_State(log, releases))
        log.writer.on_commit = self.committed
        log.writer.on_damaged_key = self._damaged_keys.inc

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; `route` is the pattern, never the path, and `method` one of few."""
        key = (route, method, status)
        children = self._known.get(key)
        if children is None:
            children = self._known[key] = (self._requests.labels(*key), self._latency.labels(route))
        children[0].inc()
        children[1].observe(seconds)

    def decided(
        self, decision: Decision, bundle: Bundle, variant: str = CHAMPION, seconds: float | None = None
    ) -> None:
        """Count a decision that `bundle` took, which is recorded after some `seconds`."""
        variant = variant if variant in VARIANTS else OTHER
        self._child(self._decisions, decision.decision.value, decision.decided_by.value, variant).inc()
        if decision.score is not None:
            self._child(self._scores, variant).observe(decision.score)
        if seconds is not None:
            self._child(self._decision_time, variant).observe(seconds)
        for code in decision.reason_codes:
            known = str(code) if code in self._catalogue(bundle) else OTHER
            self._child(self._reasons, known).inc()
            if decision.decision is Outcome.MANUAL_REVIEW:
                self._child(self._fallbacks, known, variant).inc()

    def committed(self, records: int, seconds: float) -> None:
        """Count a commit of the decision log."""
        self._batches.observe(records)
        self._commits.observe(seconds)

    def replayed(self) -> None:
        """Count an answer that was given again."""
        self._replays.inc()

    def auth_failed(self, reason: str) -> None:
        """Count a request that was not let in."""
        self._child(self._auth_failures, reason if reason in AUTH_FAILURES else OTHER).inc()

    def release_failed(self) -> None:
        """Count a promoted bundle that could not be served."""
        self._load_failures.inc()

    def experiment_failed(self) -> None:
        """Count an experiment that could not be run."""
        self._experiment_failures.inc()

    def shadow_decided(self, fate: str) -> None:
        """Count a shadow decision: recorded, dropped or failed."""
        self._child(self._shadows, fate).inc()

    def bureau_asked(self, result: str) -> None:
        """Count a lookup: fetched, unavailable, invalid or breaker_open."""
        self._child(self._lookups, result).inc()

    def gauge(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        """Show a value as it is when the page is asked for."""
        Gauge(name, documentation, registry=self._registry).set_function(value)

    def info(self, name: str, documentation: str, labels: Mapping[str, str]) -> None:
        """Show texts that stay as they are for as long as the process runs."""
        Info(name, documentation, registry=self._registry).info(dict(labels))

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _child(self, metric: Any, *values: str) -> Any:
        child = self._known.get((metric, *values))
        if child is None:
            child = self._known[(metric, *values)] = metric.labels(*values)
        return child

    def _catalogue(self, bundle: Bundle) -> frozenset[str]:
        codes = self._codes.get(bundle.digest)
        if codes is None:
            codes = self._codes[bundle.digest] = codes_of(bundle)
        return codes

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self._registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, about, labels, buckets=buckets, registry=self._registry)


def codes_of(bundle: Bundle) -> frozenset[str]:
    """Every code that a decision of a bundle can carry."""
    features = bundle.portfolio.features
    return frozenset(
        [code.value for code in Routing]
        + [rule.code for rule in bundle.engine.policy.rules]
        + [feature.reason_code(known=known) for feature in features for known in (True, False)]
    )


class _State(Collector):
    """What is true at the moment of a scrape."""

    def __init__(self, log: "DecisionLog", releases: "ReleaseFollower") -> None:
        self._log = log
        self._releases = releases

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        writer, bundle = self._log.writer, self._releases.serving
        since = writer.oldest_since
        waited = max(0.0, time.monotonic() - since) if since is not None else 0.0
        problem = self._log.problem is not None
        for name, about, value in (
            ("cde_ready", "1 while applications are decided", bundle is not None and not problem),
            ("cde_log_problem", "1 while decisions cannot be recorded or sealed", problem),
            ("cde_release_problem", "1 while what is promoted cannot be served", bool(self._releases.problem)),
            ("cde_queue_depth", "Decisions that wait to be committed", writer.waiting),
            ("cde_queue_oldest_seconds", "How long the oldest of them has waited", waited),
        ):
            yield GaugeMetricFamily(name, about, float(value))
        yield InfoMetricFamily("cde_decision_log", "The chain that this process writes", {"chain": writer.chain})
        if bundle is not None:
            yield InfoMetricFamily(
                "cde_release",
                "What decides",
                {
                    "portfolio": bundle.portfolio.name,
                    "bundle": bundle.digest,
                    "policy_version": bundle.engine.policy.version,
                },
            )

    def describe(self) -> tuple[()]:
        """Nothing: the metrics are known only when asked for."""
        return ()
