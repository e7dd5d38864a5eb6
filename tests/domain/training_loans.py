"""Synthetic loans to train on: unknown values, a whole-number feature, and a purpose that nobody in training had."""

import numpy as np

from cde_domain.features.feature import Feature
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.forest import ForestSettings
from cde_domain.training.histogram import HistogramSettings

FEATURES = (
    Feature("income", lambda c: c["income"], "Income", "Income is low", monotone=1),
    Feature("debt", lambda c: c["debt"], "Debt", "Debts are high", monotone=-1),
    Feature("age_of_account", lambda c: c["age"], "Age", "The account is young"),
    Feature("purpose", lambda c: c["purpose"], "Purpose", "The purpose", categories=("a", "b", "c", "d", "e", "f")),
)
ROWS = 1_500
LEARNERS = (
    BoostingSettings(rounds=40, max_depth=4, seed=3),
    ForestSettings(trees=30, seed=3),
    HistogramSettings(rounds=40, seed=3),
)


def kind_of(learner) -> str:
    """The kind of a learner, to name a test by."""
    return learner.kind


def loans(seed: int = 0, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """A (rows, features) matrix and 0/1 labels."""
    random = np.random.default_rng(seed)
    income, debt = random.lognormal(0, 0.7, rows), random.exponential(1.0, rows)
    age, purpose = random.integers(0, 20, rows).astype(float), random.integers(0, 5, rows).astype(float)
    margin = 0.6 + income - debt + np.array([0.0, 1.2, -0.8, 0.5, 0.0])[purpose.astype(int)]
    repaid = (random.random(rows) < 1 / (1 + np.exp(-margin))).astype(float)
    matrix = np.column_stack([income, debt, age, purpose])
    matrix[random.random((rows, 4)) < 0.1] = np.nan
    return matrix, repaid
