"""95 % intervals and tests of shares, ratios and differences, and Holm's correction: what a few people can say."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

LEVEL = 0.05


def _z(level: float) -> float:
    return NormalDist().inv_cdf(1 - level / 2)


Z = _z(LEVEL)  # 1.96: so many standard errors a normal interval reaches to either side


def one_sided_z(level: float) -> float:
    """So many standard errors a normal estimate is exceeded by with probability `level`."""
    return NormalDist().inv_cdf(1 - level)


def normal_interval(estimate: float, error: float) -> Interval:
    """The normal interval of an estimate with a standard error."""
    return float(estimate - Z * error), float(estimate + Z * error)


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """The normal interval of a mean of at least two values."""
    return normal_interval(float(values.mean()), float(values.std(ddof=1)) / float(np.sqrt(len(values))))


def wilson(successes: int, rows: int, *, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share; `rows` must be positive."""
    z = _z(level)
    share, spread = successes / rows, z * z / rows
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / rows + spread / (4 * rows)) / (1 + spread)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def newcombe(successes: int, rows: int, other: int, other_rows: int, *, level: float = LEVEL) -> Interval:
    """Newcombe's interval of a difference of two shares (his method 10), first minus other."""
    first, second = successes / rows, other / other_rows
    low, high = wilson(successes, rows, level=level)
    other_low, other_high = wilson(other, other_rows, level=level)
    below = np.hypot(first - low, other_high - second)
    above = np.hypot(high - first, second - other_low)
    return float(first - second - below), float(first - second + above)


def log_ratio(successes: int, rows: int, other: int, other_rows: int) -> tuple[float, float]:
    """
    The logarithm of a ratio of two shares and its standard error (Katz).

    Half a count is added, so that a group without successes has an interval too.
    """
    estimate = np.log(((successes + 0.5) / (rows + 0.5)) / ((other + 0.5) / (other_rows + 0.5)))
    error = np.sqrt(1 / (successes + 0.5) - 1 / (rows + 0.5) + 1 / (other + 0.5) - 1 / (other_rows + 0.5))
    return float(estimate), float(error)


def ratio_interval(successes: int, rows: int, other: int, other_rows: int) -> Interval:
    """Katz's log interval of a ratio of two shares."""
    low, high = normal_interval(*log_ratio(successes, rows, other, other_rows))
    return float(np.exp(low)), float(np.exp(high))


def ratio_below(successes: int, rows: int, other: int, other_rows: int, *, line: float) -> float:
    """
    The one-sided p-value of a ratio of two shares against a `line`: how likely so low a ratio is where it is the line.

    It is the score test (Koopman 1984, Confidence intervals for the ratio of two binomial proportions), which keeps its
    level in small groups too. The other share must be above 0, and larger than the first.
    """
    # The other share that explains both best if the ratio is the line: the smaller root of a quadratic equation.
    a, b = line * (rows + other_rows), line * (rows + other) + other_rows + successes
    second = (b - np.sqrt(max(0.0, b * b - 4 * a * (successes + other)))) / (2 * a)
    first = line * second
    error = np.sqrt(first * (1 - first) / rows + line**2 * second * (1 - second) / other_rows)
    return NormalDist().cdf(float((successes / rows - line * other / other_rows) / error))


def absolute(interval: Interval) -> Interval:
    """The interval of |x| from that of x."""
    low, high = interval
    if low <= 0 <= high:
        return 0.0, max(-low, high)
    return min(abs(low), abs(high)), max(abs(low), abs(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: together they err once in twenty if each is held to 0.05."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.array(p_values)[order] * np.arange(len(p_values), 0, -1))
    return np.minimum(adjusted, 1.0).tolist()
