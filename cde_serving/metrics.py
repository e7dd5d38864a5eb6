"""What Prometheus scrapes: bounded labels only, and nothing about a person."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cde_domain.decisions.engine import Decision

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SCORES = tuple(round(0.05 * step, 2) for step in range(1, 21))


class Metrics:
    """The counters of one service process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("cde_http_requests", "Requests answered", ("route", "status"), registry=self._registry)
        self._latency = Histogram(
            "cde_http_request_seconds", "Time to answer a request", ("route",), buckets=SECONDS, registry=self._registry
        )
        self._decisions = Counter(
            "cde_decisions", "Decisions answered", ("decision", "decided_by"), registry=self._registry
        )
        self._scores = Histogram("cde_score", "Scores answered", buckets=SCORES, registry=self._registry)
        self._load_failures = Counter(
            "cde_release_load_failures", "Promoted bundles that could not be served", registry=self._registry
        )
        self._experiment_failures = Counter(
            "cde_experiment_failures", "Experiments that could not be run", registry=self._registry
        )
        self._shadows = Counter("cde_shadow_decisions", "Shadow decisions", ("fate",), registry=self._registry)
        self._lookups = Counter("cde_bureau_lookups", "Lookups at the bureau", ("result",), registry=self._registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is the pattern, never the path."""
        self._requests.labels(route, status).inc()
        self._latency.labels(route).observe(seconds)

    def decided(self, decision: Decision) -> None:
        """Count a decision."""
        self._decisions.labels(decision.decision, decision.decided_by).inc()
        if decision.score is not None:
            self._scores.observe(decision.score)

    def release_failed(self) -> None:
        """Count a promoted bundle that could not be served."""
        self._load_failures.inc()

    def experiment_failed(self) -> None:
        """Count an experiment that could not be run."""
        self._experiment_failures.inc()

    def shadow_decided(self, fate: str) -> None:
        """Count a shadow decision: recorded, dropped or failed."""
        self._shadows.labels(fate).inc()

    def bureau_asked(self, result: str) -> None:
        """Count a lookup: fetched, unavailable, invalid or breaker_open."""
        self._lookups.labels(result).inc()

    def watch(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        """Show a value as it is when the page is asked for."""
        Gauge(name, documentation, registry=self._registry).set_function(value)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
