"""Features that say much the same: which they are, and what they contribute together."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.governance.notices import Notices, Population

Array = NDArray[np.float64]

CORRELATED = 0.7
MOST_ROWS = 5_000


def correlations(features: tuple[Feature, ...], population: Population) -> Array:
    """
    |Spearman's rank correlation| of every pair of features, of shape (features, features), over pairs of known values.

    Categories without an order are ranked by their mean contribution. Measured on at most 5,000 rows drawn at random;
    a feature that never varies correlates with nothing.
    """
    rows = np.random.default_rng(0).permutation(len(population.matrix))[:MOST_ROWS]
    frame = pd.DataFrame(population.matrix[rows])
    for position, feature in enumerate(features):
        if feature.categories:
            contributions = pd.Series(population.contributions[rows, position])
            frame[position] = contributions.groupby(frame[position]).transform("mean")
    found = frame.corr(method="spearman", min_periods=30).abs().fillna(0.0).to_numpy(copy=True)
    np.fill_diagonal(found, 1.0)
    return found


def groups_of(correlation: Array) -> NDArray[np.int64]:
    """The group of every feature: all pairs in one correlate by at least 0.7 (complete linkage)."""
    from scipy.cluster.hierarchy import fcluster, linkage  # half a second to import
    from scipy.spatial.distance import squareform

    if len(correlation) < 2:
        return np.zeros(len(correlation), dtype=np.int64)
    distance = squareform(np.clip(1 - correlation, 0, 1), checks=False)
    return np.asarray(fcluster(linkage(distance, method="complete"), 1 - CORRELATED, criterion="distance"))


def group_facts(features: tuple[Feature, ...], population: Population, notices: Notices) -> dict[str, Any]:
    """The groups of more than one feature, what they contribute together, and notices with two reasons of one."""
    correlation = correlations(features, population)
    group = groups_of(correlation)
    groups = []
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        if len(members) < 2:
            continue
        pairs = correlation[np.ix_(members, members)][np.triu_indices(len(members), 1)]
        groups.append(
            {
                "features": [features[member].name for member in members],
                "smallest_correlation": float(pairs.min()),
                "mean_absolute_contribution": float(np.abs(population.contributions[:, members].sum(axis=1)).mean()),
            }
        )
    doubled = sum(len(reasons) > len({group[reason] for reason in reasons}) for reasons in notices.reasons)
    return {"correlated_at": CORRELATED, "groups": groups, "notices_with_two_reasons_of_one_group": doubled}
