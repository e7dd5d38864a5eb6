"""Applicants of whom some values are unknown, and XGBoost's trees about them."""

import numpy as np
import xgboost as xgb

from cde_domain.features.feature import Feature
from cde_domain.model.ensemble import LEAF, Tree
from cde_domain.training.boosting import BoostingSettings, fit

FEW = tuple("abc")  # split off one by one
MANY = tuple(f"trade_{number}" for number in range(20))  # split as sets


def feature(name: str, *, monotone: int = 0, categories: tuple[str, ...] = ()) -> Feature:
    return Feature(name, lambda columns: columns[name], name, name, monotone=monotone, categories=categories)


FEATURES = (
    feature("income", monotone=1),
    feature("debt", monotone=-1),
    feature("age_of_file"),
    feature("purpose", categories=FEW),
    feature("trade", categories=MANY),
)


def applicants(rows: int, *, seed: int, trades: int = len(MANY)) -> np.ndarray:
    """Rows of `FEATURES` of which a tenth of every value is unknown; the doubles are no float32 numbers."""
    random = np.random.default_rng(seed)
    matrix = np.column_stack(
        [
            random.lognormal(10, 1, rows),
            random.exponential(5000, rows),
            random.normal(0, 1e-3, rows),
            random.integers(0, len(FEW), rows),
            random.integers(0, trades, rows),
        ]
    )
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix


def outcomes(matrix: np.ndarray, *, seed: int) -> np.ndarray:
    known = np.nan_to_num(matrix, nan=0.0)
    margin = 0.3 * np.log1p(known[:, 0]) - known[:, 1] / 5000 + 300 * known[:, 2] + np.sin(7 * known[:, 4])
    return (np.random.default_rng(seed).random(len(matrix)) < 1 / (1 + np.exp(-margin))).astype(float)


def train(depth: int) -> xgb.Booster:
    matrix = applicants(3000, seed=depth, trades=18)  # the last two trades are never seen
    settings = BoostingSettings(rounds=30, max_depth=depth, learning_rate=0.3, min_child_weight=1.0)
    return fit(FEATURES, matrix, outcomes(matrix, seed=depth), settings)


def stump(position: int, low: float, high: float) -> Tree:
    """A tree that asks whether one feature is below 0, met by half of the training rows; unknown counts as below."""
    return Tree(
        left=np.array([1, LEAF, LEAF], dtype=np.int32),
        right=np.array([2, LEAF, LEAF], dtype=np.int32),
        feature=np.array([position, 0, 0], dtype=np.int32),
        threshold=np.zeros(3),
        categorical=np.zeros(3, dtype=bool),
        left_categories=np.zeros(3, dtype=np.uint64),
        missing_left=np.ones(3, dtype=bool),
        value=np.array([0.0, low, high]),
        cover=np.array([100.0, 50.0, 50.0]),
    )
