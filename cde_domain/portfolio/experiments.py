"""The rules of experiments: how a challenger is given more customers, and what takes them away again."""

from dataclasses import dataclass

from cde_domain.portfolio.errors import PortfolioError

_SHARES = (
    "alpha",
    "power",
    "max_approval_change",
    "max_bad_rate_rise",
    "max_fallback_rise",
    "max_expected_bad_rate_rise",
    "max_score_shift",
    "max_failed_requests",
    "max_slow_requests",
)


@dataclass(frozen=True, kw_only=True)
class ExperimentRules:
    """
    How an experiment goes on by itself.

    The challenger decides for the shares of customers in `ramp`, one after the other; after the last it is promoted.
    It stays at each for at least `min_days` days and `min_decisions` of its own customers, and for `max_days` in all:
    an experiment that is not promoted by then ends. An experiment without any harm is stopped with a probability of
    at most `alpha`, however often it is looked at, as long as applicants do not change once the challenger decides for
    everybody; `power` is what its size is planned for.

    From `max_approval_change` to `max_score_shift` are the guardrails, differences between the variants on the same
    population: of the share that is approved (in either direction), that does not repay, that ends in a fallback, that
    the scores expect not to repay, and of the mean score (in either direction; two calibrated models agree on it).
    A group's approval rate over that of its reference group may not fall below the portfolio's
    `thresholds.min_adverse_impact_ratio`. The service may fail or exceed `slow_after_ms` in shares of its requests.
    A promotion waits for `min_outcomes` mature outcomes of the challenger's loans, and `segments` names the features by
    which variants are compared besides those with categories.
    """

    ramp: tuple[float, ...] = (0.05, 0.25, 0.5, 1.0)
    alpha: float = 0.05
    power: float = 0.8
    min_days: float = 3.0
    max_days: float = 180.0
    min_decisions: int = 100
    min_outcomes: int = 0
    max_approval_change: float = 0.10
    max_bad_rate_rise: float = 0.05
    max_fallback_rise: float = 0.05
    max_expected_bad_rate_rise: float = 0.08
    max_score_shift: float = 0.10
    max_failed_requests: float = 0.02
    max_slow_requests: float = 0.05
    slow_after_ms: float = 1000.0
    segments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.ramp or list(self.ramp) != sorted(set(self.ramp)) or not 0 < self.ramp[0] < 1 >= self.ramp[-1]:
            raise PortfolioError(f"experiment: ramp={self.ramp} must begin between 0 and 1, and grow to 1 at most")
        for name in _SHARES:
            if not 0 < getattr(self, name) < 1:
                raise PortfolioError(f"experiment: {name} must lie between 0 and 1")
        if not 0 <= self.min_days < self.max_days:
            raise PortfolioError("experiment: min_days must not be negative, and max_days must be more")
        if self.min_decisions < 1 or self.min_outcomes < 0 or self.slow_after_ms <= 0:
            raise PortfolioError("experiment: min_decisions, min_outcomes and slow_after_ms must not be negative or 0")

    def after(self, weight: float) -> float | None:
        """The share that follows on a weight; None after the last, when a promotion follows."""
        return next((step for step in self.ramp if step > weight), None)
