"""Trees of every depth that is served, once for all tests of the model."""

import numpy as np
import pytest
import xgboost as xgb

from cde_domain.model.compilation import compile_trees
from cde_domain.model.compiled import CompiledTrees
from cde_domain.training.boosting import to_ensemble
from tests.domain.model.trades import applicants, train


@pytest.fixture(scope="session", params=[1, 2, 3, 4, 5])
def booster(request: pytest.FixtureRequest) -> xgb.Booster:
    return train(request.param)


@pytest.fixture(scope="session")
def trees(booster: xgb.Booster) -> CompiledTrees:
    return compile_trees(to_ensemble(booster))


@pytest.fixture(scope="session")
def matrix() -> np.ndarray:
    return applicants(2000, seed=99)
