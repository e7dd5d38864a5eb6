"""Is the served form monotone where the portfolio says so?"""

import numpy as np
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.model.compiled import CompiledTrees

GRID = 25


def monotone_violations(
    trees: CompiledTrees, features: tuple[Feature, ...], matrix: NDArray[np.float64], *, rows: int = 200, seed: int = 0
) -> dict[str, int]:
    """For each feature with a direction: on how many sampled rows the margin moves against it along a grid."""
    sample = matrix[np.random.default_rng(seed).permutation(len(matrix))[:rows]]
    violations = {}
    for position, feature in enumerate(features):
        known = matrix[~np.isnan(matrix[:, position]), position]
        if not feature.monotone or not len(known):
            continue
        grid = np.unique(np.quantile(known, np.linspace(0, 1, GRID)))
        varied = np.repeat(sample, len(grid), axis=0)
        varied[:, position] = np.tile(grid, len(sample))
        steps = np.diff(trees.margins(varied).reshape(len(sample), len(grid)), axis=1)
        violations[feature.name] = int((steps * feature.monotone < -1e-9).any(axis=1).sum())
    return violations
