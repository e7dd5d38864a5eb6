"""Incremental training: rounds added behind the champion's trees, fitted on loans that the champion never met."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.training.boosting import BoostedTrees, BoostingSettings, fit

Array = NDArray[np.float64]

MOST_TREES = 1_000  # an explanation takes about a microsecond a tree, and a decision has a budget
LEAST_ROWS = 200
LEAST_OF_AN_OUTCOME = 25  # five in each fold, for the calibrator's sake


class ContinuationError(ValueError):
    """The champion cannot be continued on these loans."""


@dataclass(frozen=True)
class ContinuedLearner:
    """
    Adds the rounds of `settings` behind the champion's trees, which stay as they are, as does its base margin.

    `origin` names the champion's model and its library file.
    """

    settings: BoostingSettings
    champion: BoostedTrees
    origin: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The way to learn."""
        return self.settings.kind

    @property
    def margin(self) -> str:
        """What the trees add up to."""
        return self.settings.margin

    @property
    def seed(self) -> int:
        """What chance in training is drawn from."""
        return self.settings.seed

    @property
    def whole(self) -> BoostingSettings:
        """The settings with the champion's rounds and the added ones."""
        return replace(self.settings, rounds=self.champion.booster.num_boosted_rounds() + self.settings.rounds)

    def parameters(self) -> dict[str, Any]:
        """The parameters in XGBoost's terms, and how many rounds were added."""
        return self.settings.parameters() | {"added_rounds": self.settings.rounds}

    def library(self) -> str:
        """The library and its version."""
        return self.settings.library()

    def load(self, features: tuple[Feature, ...], path: Path) -> BoostedTrees:
        """Read what a fitted model saved; whoever loads has verified the file's digest before."""
        return self.settings.load(features, path)

    def fit(
        self, features: tuple[Feature, ...], matrix: Array, repaid: Array, weights: Array | None = None
    ) -> BoostedTrees:
        """Add rounds for rows that the champion did not learn from, monotone in the declared directions."""
        booster = fit(features, matrix, repaid, self.settings, weights=weights, onto=self.champion.booster)
        return BoostedTrees(features, booster)

    def describe(self) -> dict[str, Any]:
        """The learner as JSON, with the settings of the whole model."""
        continued = {**self.origin, "rounds": self.settings.rounds}
        return {"kind": self.kind, "settings": asdict(self.whole), "continued": continued}


def continued(
    champion: BoostedTrees, settings: BoostingSettings, rounds: int, origin: Mapping[str, Any]
) -> ContinuedLearner:
    """
    The champion's own settings with so many more rounds.

    Raises:
        ContinuationError: the model would have more trees than can be served in time.
    """
    learner = ContinuedLearner(replace(settings, rounds=rounds), champion, origin)
    if learner.whole.rounds > MOST_TREES:
        trees = champion.booster.num_boosted_rounds()
        raise ContinuationError(
            f"the champion has {trees} trees and at most {MOST_TREES} are served, so {rounds} cannot be added: "
            "train in mode full"
        )
    return learner


def same_features(champion: tuple[Feature, ...], portfolio: tuple[Feature, ...]) -> None:
    """
    Refuse a champion whose inputs are others than the portfolio's now.

    Raises:
        ContinuationError: naming the features that came, went or changed.
    """
    theirs, ours = ({f.name: (at, f.categories, f.monotone) for at, f in enumerate(fs)} for fs in (champion, portfolio))
    if differing := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        raise ContinuationError(f"the champion has other features ({', '.join(differing)}): train in mode full")


def learned_rows(features: tuple[Feature, ...], rows: pd.DataFrame) -> pd.DataFrame:
    """What is kept of the loans that a model learned from: application, customer, and a hash of the features."""
    values = pd.util.hash_pandas_object(rows[[feature.name for feature in features]], index=False)
    return rows[["application_id", "customer_id"]].assign(features=values.to_numpy())


def unmet_by(learned: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of applications and customers that a model did not learn from."""
    met = rows["application_id"].isin(learned["application_id"]) | rows["customer_id"].isin(learned["customer_id"])
    return rows[~met].reset_index(drop=True)


def new_loans(features: tuple[Feature, ...], training: pd.DataFrame, learned: pd.DataFrame) -> pd.DataFrame:
    """
    The rows of the training set to continue on: applications of customers whom the champion did not learn from.

    A known customer's next loan is left out too. It would be scored, in cross-validation, by trees that met its owner.

    Raises:
        ContinuationError: loans the champion learned from have other features now, or too few are new.
    """
    both = learned_rows(features, training).merge(learned, on="application_id", suffixes=("", "_then"))
    if changed := int(
        ((both["features"] != both["features_then"]) | (both["customer_id"] != both["customer_id_then"])).sum()
    ):
        raise ContinuationError(
            f"{changed} of the loans that the champion learned from have other features or another customer now: "
            "train in mode full"
        )
    new = unmet_by(learned, training)
    rarer = int(new["repaid"].value_counts().reindex([0, 1], fill_value=0).min())
    if len(new) < LEAST_ROWS or rarer < LEAST_OF_AN_OUTCOME:
        raise ContinuationError(
            f"{len(new)} loans are new to the champion, {rarer} of the rarer outcome; {LEAST_ROWS} and "
            f"{LEAST_OF_AN_OUTCOME} are needed: bring more loans, or train in mode full"
        )
    return new
