"""A model moves with its declared directions, and a move against one is found."""

from dataclasses import replace

import numpy as np

from cde_domain.model.compilation import compile_trees
from cde_domain.model.compiled import CompiledTrees
from cde_domain.model.ensemble import TreeEnsemble
from cde_domain.model.monotone import monotone_violations
from cde_domain.training.boosting import BoostingSettings, fit, to_ensemble
from tests.domain.model.trades import FEATURES, applicants, feature, stump


def test_a_planted_move_against_a_direction_is_found():
    directed = (feature("income", monotone=1), feature("debt", monotone=-1), feature("free"))
    trees = compile_trees(TreeEnsemble((stump(0, 0, 1), stump(1, 0, 1), stump(2, 1, 0)), 0.0, 3))
    rows = np.random.default_rng(0).normal(size=(50, 3))

    assert monotone_violations(trees, directed, rows) == {"income": 0, "debt": 50}


def test_a_constrained_model_moves_nowhere_against_a_direction(trees: CompiledTrees, matrix: np.ndarray):
    assert monotone_violations(trees, FEATURES, matrix, rows=100) == {"income": 0, "debt": 0}


def test_an_unconstrained_model_of_noise_is_caught():
    free = tuple(replace(item, monotone=0) for item in FEATURES)
    rows = applicants(1000, seed=1)
    noise = (np.random.default_rng(2).random(len(rows)) < 0.5).astype(float)
    trees = compile_trees(to_ensemble(fit(free, rows, noise, BoostingSettings(rounds=20))))

    assert all(count > 0 for count in monotone_violations(trees, FEATURES, rows).values())
