"""The proxy screen: how well the model's inputs, together and one by one, tell a protected attribute."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.governance.fairness import MIN_REPORTED, members_of
from cde_domain.model.metrics import auc, auc_interval
from cde_domain.training.boosting import BoostingSettings, to_dmatrix

Array = NDArray[np.float64]

FOLDS = 5
MOST_ROWS = 2_500
ROUNDS = 30
PARAMETERS = BoostingSettings(max_depth=3, learning_rate=0.12, min_child_weight=5.0, seed=11).parameters()


@dataclass(frozen=True)
class ProxyResult:
    """
    How well one group of a protected attribute is told from the others, cross-validated.

    `auc` is that of a small gradient boosting on all features; `feature` the strongest alone, `feature_auc` its area.
    The intervals are DeLong's at 95 %. All are None where fewer than 30 rows are inside or outside the group.
    """

    attribute: str
    group: str
    rows: int
    members: int
    auc: float | None = None
    interval: tuple[float, float] | None = None
    feature: str | None = None
    feature_auc: float | None = None
    feature_interval: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """The result as JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def proxy_screen(
    features: tuple[Feature, ...], matrix: Array, attributes: Mapping[str, pd.Series], *, seed: int = 0
) -> tuple[ProxyResult, ...]:
    """
    Predict every protected attribute, one group against the rest, from a (rows, features) matrix.

    Rows of unknown group are left out, and of large books 2,500 rows are drawn. Of an attribute with two groups only
    the smaller is screened: the other's figures are the same.
    """
    results: list[ProxyResult] = []
    for attribute, groups in attributes.items():
        known = np.flatnonzero(groups.notna().to_numpy())
        rows = np.sort(np.random.default_rng(seed).permutation(known)[:MOST_ROWS])
        members = members_of(groups.iloc[rows])
        sizes = {group: int(member.sum()) for group, member in members.items()}
        screened = {min(sizes, key=lambda group: sizes[group])} if len(sizes) == 2 else set(sizes)
        large = {g for g in screened if MIN_REPORTED <= sizes[g] <= len(rows) - MIN_REPORTED}
        screen = _Screen(features, matrix[rows], seed) if large else None
        results += [
            screen.result(attribute, group, members[group])
            if screen and group in large
            else ProxyResult(attribute, group, len(rows), sizes[group])
            for group in sorted(screened)
        ]
    return tuple(results)


class _Screen:
    """Folds of a (rows, features) matrix in XGBoost's form, made once for all groups of an attribute."""

    def __init__(self, features: tuple[Feature, ...], matrix: Array, seed: int) -> None:
        self.features = features
        self.matrix = matrix
        fold = np.random.default_rng(seed).permutation(len(matrix)) % FOLDS
        self.folds = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(FOLDS)]
        self.data = [tuple(to_dmatrix(features, matrix[rows]) for rows in both) for both in self.folds]

    def result(self, attribute: str, group: str, member: NDArray[np.bool_]) -> ProxyResult:
        """The cross-validated areas of one group against the rest."""
        label = member.astype(np.float64)
        predicted = np.empty(len(label))
        alone = np.empty_like(self.matrix)
        for (training, fold), (seen, unseen) in zip(self.folds, self.data, strict=True):
            seen.set_label(label[training])
            predicted[fold] = xgb.train(PARAMETERS, seen, num_boost_round=ROUNDS).predict(unseen)
            for position, feature in enumerate(self.features):
                alone[fold, position] = _alone(feature, self.matrix[:, position], label, training, fold)
        areas = [auc(label, values) for values in alone.T]
        strongest = int(np.argmax(areas))
        return ProxyResult(
            attribute,
            group,
            len(label),
            int(member.sum()),
            auc=auc(label, predicted),
            interval=auc_interval(label, predicted),
            feature=self.features[strongest].name,
            feature_auc=areas[strongest],
            feature_interval=auc_interval(label, alone[:, strongest]),
        )


def _alone(feature: Feature, values: Array, label: Array, training: NDArray[np.intp], fold: NDArray[np.intp]) -> Array:
    """One feature as a score of membership for the rows of a fold: its direction and rates come from the others."""
    prior = float(label[training].mean())
    known = training[~np.isnan(values[training])]
    if feature.categories:
        positions = np.where(np.isnan(values), len(feature.categories), values).astype(np.intp)
        size = len(feature.categories) + 1
        counts = np.bincount(positions[training], minlength=size)
        inside = np.bincount(positions[training], weights=label[training], minlength=size)
        return ((inside + 5 * prior) / (counts + 5))[positions[fold]]  # rare categories stay near the prior
    if len(np.unique(label[known])) < 2:
        return np.full(len(fold), prior)
    middle = np.nanmedian(values[training])
    direction = 1.0 if auc(label[known], values[known]) >= 0.5 else -1.0
    return direction * np.where(np.isnan(values[fold]), middle, values[fold])
