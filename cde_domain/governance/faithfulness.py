"""Are the reasons what holds an applicant back? Mend them, and see what the model says."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.engine import DecisionEngine
from cde_domain.features.feature import Feature
from cde_domain.governance.notices import Notices, Population, mean_interval
from cde_domain.intervals import wilson

Array = NDArray[np.float64]

DRAWS = 20
SUBSETS = 40


def typical_values(features: tuple[Feature, ...], population: Population) -> Array:
    """The median of each feature, or the commonest category, of those who just passed; NaN if unknown to most."""
    matrix = population.matrix[population.passed]
    typical = np.full(len(features), np.nan)
    for position, feature in enumerate(features):
        values = matrix[:, position]
        known = values[~np.isnan(values)]
        if 2 * len(known) > len(values):
            commonest = np.bincount(known.astype(np.int64)).argmax() if feature.categories else 0
            typical[position] = commonest if feature.categories else np.median(known)
    return typical


def mended(features: tuple[Feature, ...], matrix: Array, typical: Array) -> Array:
    """A (rows, features) matrix with every value that is not better already made what is typical just above."""
    better = np.repeat(typical[None], len(matrix), axis=0)
    for position, feature in enumerate(features):
        choose = {1: np.fmax, -1: np.fmin}.get(feature.monotone)
        if choose is not None:
            better[:, position] = choose(matrix[:, position], typical[position])
    return better


def faithfulness_facts(engine: DecisionEngine, population: Population, notices: Notices) -> dict[str, Any]:
    """
    What mending the features named as reasons does to the margin, against mending as many features drawn at random.

    `repair_rate` is the share of notices whose margin rises. `beats_random` is the share for which mending the reasons
    raises it more than the mean of 20 random draws does. `correlation` is that of contributions (less the baseline's)
    with the loss of margin when random quarters of the features are mended, the mean over applicants of Pearson's r.
    """
    if not len(notices):
        return {"notices": 0, "repair_rate": None, "mean_gain": None, "mean_gain_of_random": None}
    features, random = engine.portfolio.features, np.random.default_rng(0)
    better = mended(features, notices.matrix, typical_values(features, population))
    cited = np.zeros(notices.matrix.shape, dtype=bool)
    for row, reasons in enumerate(notices.reasons):
        cited[row, list(reasons)] = True
    gain = _margins(engine, notices, better, cited) - notices.margins
    used = np.abs(population.contributions).max(axis=0) > 0
    by_chance = np.mean(
        [_margins(engine, notices, better, _as_many(cited, used, random)) - notices.margins for _ in range(DRAWS)],
        axis=0,
    )
    beats = gain > by_chance
    correlation = _correlation(engine, notices, better, used, random)
    return {
        "notices": len(notices),
        "repair_rate": float((gain > 0).mean()),
        "repair_rate_interval": list(wilson(int((gain > 0).sum()), len(notices))),
        "mean_gain": float(gain.mean()),
        "mean_gain_of_random": float(by_chance.mean()),
        "beats_random": float(beats.mean()),
        "beats_random_interval": list(wilson(int(beats.sum()), len(notices))),
        "approved_when_mended": float(
            (engine.model.calibrator.scores(notices.margins + gain) >= engine.policy.approve_at).mean()
        ),
        "correlation": float(correlation.mean()) if len(correlation) else None,
        "correlation_interval": list(mean_interval(correlation)) if len(correlation) > 1 else None,
    }


def _margins(engine: DecisionEngine, notices: Notices, better: Array, where: NDArray[np.bool_]) -> Array:
    return engine.model.trees.margins(np.where(where, better, notices.matrix))


def _as_many(cited: NDArray[np.bool_], used: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.bool_]:
    """For each row as many features as are cited, drawn from those the model uses."""
    places = random.random(cited.shape)
    places[:, ~used] = 2.0
    ranks = np.argsort(np.argsort(places, axis=1), axis=1)
    return ranks < cited.sum(axis=1)[:, None]


def _correlation(
    engine: DecisionEngine, notices: Notices, better: Array, used: NDArray[np.bool_], random: np.random.Generator
) -> Array:
    shortfall = notices.contributions - np.array(engine.model.reason_baseline)
    chosen = np.zeros(notices.matrix.shape, dtype=bool)
    chosen[:, np.flatnonzero(used)[: max(1, used.sum() // 4)]] = True
    said, happened = [], []
    for _ in range(SUBSETS):
        subset = _as_many(chosen, used, random)
        said.append(np.where(subset, shortfall, 0.0).sum(axis=1))
        happened.append(notices.margins - _margins(engine, notices, better, subset))
    first, second = (np.array(values) - np.mean(values, axis=0) for values in (said, happened))
    with np.errstate(invalid="ignore"):
        pearson = (first * second).sum(axis=0) / np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    return pearson[np.isfinite(pearson)]
