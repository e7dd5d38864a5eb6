"""What the service's counters say while an experiment runs: requests that failed, and requests that took too long."""

from dataclasses import dataclass

from cde_domain.decisions.experiments.sequences import Arm, mean_sequence
from cde_domain.intervals import Interval
from cde_domain.portfolio.experiments import ExperimentRules


@dataclass(frozen=True)
class Counters:
    """
    What one service process counted since it started.

    `requests` for decisions and those that `failed` (5xx); of the challenger's `timed` decisions, how many were `slow`.
    `process` names the process: counters begin at zero.
    """

    process: str
    requests: int
    failed: int
    timed: int
    slow: int

    def since(self, earlier: "Counters | None") -> "Counters":
        """What was counted after earlier counters; all of it where those were of another process."""
        if earlier is None or earlier.process != self.process or earlier.requests > self.requests:
            return self
        return Counters(
            self.process,
            self.requests - earlier.requests,
            max(0, self.failed - earlier.failed),
            max(0, self.timed - earlier.timed),
            max(0, self.slow - earlier.slow),
        )

    def plus(self, more: "Counters") -> "Counters":
        """Both together, under the later process."""
        return Counters(
            more.process,
            self.requests + more.requests,
            self.failed + more.failed,
            self.timed + more.timed,
            self.slow + more.slow,
        )


@dataclass(frozen=True)
class ServiceShare:
    """A share of what the service answered, with its confidence sequence."""

    name: str
    title: str
    rows: int
    share: float
    interval: Interval
    bound: float

    @property
    def breached(self) -> bool:
        """Whether the share is beyond its bound, with the whole interval."""
        return self.interval[0] > self.bound


def service_shares(counted: Counters | None, rules: ExperimentRules, alpha: float) -> list[ServiceShare]:
    """The shares that failed and that were slow; empty where the service was not up or nobody asked."""
    if counted is None:
        return []
    slower = f"decisions slower than {rules.slow_after_ms:.0f} ms"
    return [
        ServiceShare(name, title, rows, count / rows, mean_sequence(Arm(rows, count), alpha), bound)
        for name, title, rows, count, bound in (
            ("errors", "requests that failed", counted.requests, counted.failed, rules.max_failed_requests),
            ("latency", slower, counted.timed, counted.slow, rules.max_slow_requests),
        )
        if rows
    ]
