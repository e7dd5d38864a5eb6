"""What Prometheus scrapes: bounded labels only, and nothing about a person."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

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

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
