"""Measures of a score, in NumPy: labels are 1 (repaid) or 0, scores are probabilities of repayment."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cde_domain.intervals import normal_interval

Array = NDArray[np.float64]


def auc(repaid: Array, scores: Array) -> float:
    """Area under the ROC curve (Mann-Whitney, ties count half); NaN if there is only one class."""
    from scipy.stats import rankdata  # scipy.stats takes longer to import than all else in a code location

    good = repaid == 1
    goods, bads = int(good.sum()), int((~good).sum())
    if not goods or not bads:
        return float("nan")
    return float((rankdata(scores)[good].sum() - goods * (goods + 1) / 2) / (goods * bads))


def auc_interval(repaid: Array, scores: Array) -> tuple[float, float]:
    """95 % interval of the area under the ROC curve by DeLong's variance; NaN with fewer than two of a class."""
    low, high = normal_interval(auc(repaid, scores), auc_error(repaid, scores))
    return max(0.0, low), min(1.0, high)


def auc_error(repaid: Array, scores: Array) -> float:
    """The standard error of the area under the ROC curve (DeLong et al. 1988)."""
    from scipy.stats import rankdata

    good = repaid == 1
    goods, bads = int(good.sum()), int((~good).sum())
    if min(goods, bads) < 2:
        return float("nan")
    ranks = rankdata(scores)
    # How many of the other class each loan is placed above: the ranks in all, less those in its own class.
    above_bad = (ranks[good] - rankdata(scores[good])) / bads
    above_good = 1 - (ranks[~good] - rankdata(scores[~good])) / goods
    return float(np.sqrt(above_bad.var(ddof=1) / goods + above_good.var(ddof=1) / bads))


def ks(repaid: Array, scores: Array) -> float:
    """Kolmogorov-Smirnov distance between the scores of good and bad loans; NaN if there is only one class."""
    if not 0 < repaid.sum() < len(repaid):
        return float("nan")
    order = np.argsort(scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.inf))
    good = np.cumsum(repaid[order])[ends] / repaid.sum()
    bad = np.cumsum(1 - repaid[order])[ends] / (1 - repaid).sum()
    return float(np.abs(good - bad).max())


def brier(repaid: Array, scores: Array) -> float:
    """Mean squared distance between score and outcome."""
    return float(np.mean((scores - repaid) ** 2))


def log_loss(repaid: Array, scores: Array) -> float:
    """Mean negative log likelihood; scores are kept 1e-6 away from 0 and 1."""
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return float(-np.mean(repaid * np.log(clipped) + (1 - repaid) * np.log(1 - clipped)))


def calibration_bins(repaid: Array, scores: Array, bins: int = 10) -> NDArray[np.float64]:
    """Mean score, observed repayment rate and count in bins of equally many rows, of shape (bins, 3)."""
    parts = np.array_split(np.argsort(scores, kind="stable"), min(bins, len(scores)))
    return np.array([[scores[part].mean(), repaid[part].mean(), len(part)] for part in parts])


def calibration_error(repaid: Array, scores: Array, bins: int = 10) -> float:
    """Expected calibration error: the mean distance of score and repayment rate over bins of equally many rows."""
    table = calibration_bins(repaid, scores, bins)
    return float(np.average(np.abs(table[:, 0] - table[:, 1]), weights=table[:, 2]))


def calibration_error_by_chance(scores: Array, *, draws: int = 500, seed: int = 0) -> float:
    """The calibration error that perfectly calibrated scores like these exceed in one of twenty samples."""
    random = np.random.default_rng(seed)
    errors = [calibration_error((random.random(len(scores)) < scores).astype(np.float64), scores) for _ in range(draws)]
    return float(np.quantile(errors, 0.95))


def calibration_slope(repaid: Array, scores: Array) -> tuple[float, tuple[float, float]] | None:
    """
    The slope of the outcomes on the log-odds of the scores, with its 95 % interval.

    1 is right; below it the scores are too extreme, above it too timid. None where nothing can be fitted: the scores
    separate the outcomes, or are all one.
    """
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    design = np.column_stack([np.ones(len(scores)), np.log(clipped / (1 - clipped))])
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method
        expected = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        information = design.T @ (design * (expected * (1 - expected))[:, None])
        if np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, design.T @ (repaid - expected))
        weights += step
        if np.abs(step).max() < 1e-9:
            slope, error = float(weights[1]), float(np.sqrt(np.linalg.inv(information)[1, 1]))
            return slope, normal_interval(slope, error)
    return None


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of the measures of a score; NaN where there is only one class, of AUC and KS."""

    auc: tuple[float, float]
    ks: tuple[float, float]
    brier: tuple[float, float]


def bootstrap_intervals(repaid: Array, scores: Array, *, draws: int = 500, seed: int = 0) -> Intervals:
    """Percentile intervals over resamples of the rows; the scores are sorted once and resampled by weight."""
    order = np.argsort(scores, kind="stable")
    good, errors = repaid[order], (scores[order] - repaid[order]) ** 2
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    random = np.random.default_rng(seed)
    values = np.full((draws, 3), np.nan)
    for draw in values:
        drawn = random.integers(0, len(good), len(good))
        weights = np.bincount(drawn, minlength=len(good))[order].astype(np.float64)
        goods = np.add.reduceat(weights * good, starts)
        bads = np.add.reduceat(weights * (1 - good), starts)
        if goods.sum() and bads.sum():
            goods_below, bads_below = np.cumsum(goods) / goods.sum(), np.cumsum(bads) / bads.sum()
            draw[0] = goods @ (np.cumsum(bads) - bads / 2) / (goods.sum() * bads.sum())
            draw[1] = np.abs(goods_below - bads_below).max()
        draw[2] = weights @ errors / weights.sum()
    measured = ~np.isnan(values).all(axis=0)
    ends = np.full((2, 3), np.nan)
    ends[:, measured] = np.nanquantile(values[:, measured], [0.025, 0.975], axis=0)
    return Intervals(*((float(low), float(high)) for low, high in ends.T))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float], rows: int, *, draws: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of row positions, over resamples of the rows."""
    random = np.random.default_rng(seed)
    values = [statistic(random.integers(0, rows, rows)) for _ in range(draws)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


class Ranking:
    """The order of some scores, by which the AUC of many labellings of the same rows is found fast."""

    def __init__(self, scores: Array) -> None:
        self._order = np.argsort(scores, kind="stable")
        self._starts = np.flatnonzero(np.diff(scores[self._order], prepend=-np.inf))

    def auc(self, good: Array, weights: Array | float = 1.0) -> float:
        """
        The AUC if of each row the share `good` (0 to 1) was repaid; NaN if all are good, or none.

        With the chances of repayment as shares it is the AUC to expect: pairs of a row with itself do not count.
        """
        goods = self._by_score(good * weights)
        bads = self._by_score((1 - good) * weights)
        with_itself = float(np.sum(weights * good * (1 - good)))
        pairs = goods.sum() * bads.sum() - with_itself
        if pairs <= 0:
            return float("nan")
        above = np.sum(goods * (np.cumsum(bads) - bads / 2))  # no @: it would wake a thread for every labelling
        return float((above - with_itself / 2) / pairs)

    def _by_score(self, values: Array) -> Array:
        ordered = values[self._order]
        return ordered if len(self._starts) == len(ordered) else np.add.reduceat(ordered, self._starts)


FEW_VALUES = 12  # a feature of so few values has a bin for each


@dataclass(frozen=True)
class PsiReference:
    """
    The share of a feature's values in bins of a reference, missing values last; `rows` is how many there were.

    A bin reaches from its edge to the next, the first holds what lies below all of them. `by_value` says that each edge
    is a value with a bin for itself alone; then the first bin holds whatever is none of them. `rows` is 0, and
    `by_value` false, where an earlier version did not write it down.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    rows: int = 0
    by_value: bool = False

    @classmethod
    def of(cls, values: Array, bins: int = 10) -> "PsiReference":
        """
        The reference that `values` make: quantile bins, or a bin a value where there are few, and one for new ones.

        A value that stands for a bin or more, like the zero of those without debts, has a bin of its own; quantiles
        alone would put a flag that one in twenty has into one bin with its absence.
        """
        known = values[~np.isnan(values)]
        distinct = np.unique(known)
        few = len(distinct) <= FEW_VALUES
        edges = distinct if few else _edges(known, bins)
        shares = _smoothed(_bin_counts(values, edges, few))
        return cls(tuple(edges.tolist()), tuple(shares.tolist()), len(values), few)

    def psi(self, values: Array) -> float:
        """The population stability index of `values` against the reference."""
        expected, actual = np.array(self.shares), _smoothed(_bin_counts(values, np.array(self.edges), self.by_value))
        return float(np.sum((actual - expected) * np.log(actual / expected)))


def _edges(known: Array, bins: int) -> Array:
    distinct, counts = np.unique(known, return_counts=True)
    edges = np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])
    common = np.flatnonzero(counts * bins >= len(known))
    after = distinct[common[common + 1 < len(distinct)] + 1]
    return np.unique(np.concatenate([edges, distinct[common], after]))


def _bin_counts(values: Array, edges: Array, by_value: bool) -> NDArray[np.int64]:
    positions = np.searchsorted(edges, values, side="right")
    if by_value:
        positions[~np.isin(values, edges)] = 0
    positions[np.isnan(values)] = len(edges) + 1
    return np.bincount(positions, minlength=len(edges) + 2)


def _smoothed(counts: NDArray[np.int64]) -> Array:
    # Half a count in every bin keeps empty ones finite.
    return (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
