"""All candidates on the same folds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.candidates.choice import RULE, best_of, choose
from cde_domain.training.candidates.cross_validation import CrossValidated, PairedDifference, cross_validate
from cde_domain.training.candidates.descriptions import describe, treated
from cde_domain.training.candidates.final import unfit_to_serve
from cde_domain.training.challenger import folds_of
from cde_domain.training.continuation import ContinuedLearner
from cde_domain.training.forest import ForestSettings
from cde_domain.training.histogram import HistogramSettings
from cde_domain.training.learner import Learner, TreeLearner
from cde_domain.training.linear import LogisticSettings
from cde_domain.training.options import AS_THEY_ARE, TrainingOptions
from cde_domain.training.scorecard import ScorecardSettings

Array = NDArray[np.float64]

VOTING = "soft_voting"
TITLES = {
    "xgboost": "Monotone XGBoost",
    "hist_gradient_boosting": "Monotone histogram gradient boosting",
    "random_forest": "Monotone random forest",
    VOTING: "Soft vote of the three",
    "scorecard": "Points scorecard",
    "logistic_regression": "Logistic regression",
}
BENCHMARKS: tuple[Learner, ...] = (ScorecardSettings(), LogisticSettings())
CONTINUED_RULE = (
    "Rounds are added behind the champion's trees on loans that it did not learn from. In every fold they are added "
    "anew without it; the benchmarks also learn from the champion's loans, and all are measured on the new ones."
)


def settings_to_try(boosting: Mapping[str, Any], budget: int) -> tuple[tuple[TreeLearner, ...], ...]:
    """
    For each kind of trees the settings to compare, at most `budget` each, derived from a portfolio's for XGBoost.

    The first of each kind is its default, and XGBoost's is the portfolio's own.
    """
    own = BoostingSettings(**boosting)
    histogram = HistogramSettings(
        rounds=own.rounds,
        max_depth=own.max_depth,
        learning_rate=own.learning_rate,
        l2_regularization=own.reg_lambda,
        max_features=own.colsample_bytree,
        seed=own.seed,
    )
    forest = ForestSettings(seed=own.seed)
    deeper = {"max_depth": min(own.max_depth + 1, 5), "rounds": max(own.rounds * 2 // 3, 1)}
    tried: tuple[tuple[TreeLearner, ...], ...] = (
        (own, replace(own, **deeper), replace(own, reg_lambda=4 * own.reg_lambda)),
        (
            histogram,
            replace(histogram, **deeper),
            replace(histogram, min_samples_leaf=60, l2_regularization=4 * own.reg_lambda),
        ),
        (forest, replace(forest, max_features=0.2, min_samples_leaf=5), replace(forest, min_samples_leaf=30)),
    )
    return tuple(settings[: max(budget, 1)] for settings in tried)


@dataclass(frozen=True)
class Comparison:
    """
    All candidates on the same folds.

    `tried` holds every setting, `trees` the kept one of each kind; `chosen` is one of them, for `reason`. A continued
    champion is compared with the benchmarks only, without a `vote`.
    """

    tried: tuple[tuple[CrossValidated, ...], ...]
    trees: tuple[CrossValidated, ...]
    vote: CrossValidated | None
    benchmarks: tuple[CrossValidated, ...]
    chosen: CrossValidated
    reason: str
    rule: str = RULE

    @property
    def candidates(self) -> tuple[CrossValidated, ...]:
        """Trees, their vote and the benchmarks, in order."""
        return (*self.trees, *([self.vote] if self.vote else []), *self.benchmarks)

    @property
    def settings_tried(self) -> list[dict[str, Any]]:
        """Every setting of every kind of trees as JSON, and whether it was kept."""
        return [
            {**describe(one.learner), "kept": one is kept, **one.as_json()}
            for kind, kept in zip(self.tried, self.trees, strict=True)
            for one in kind
        ]

    def entry(self, candidate: CrossValidated) -> dict[str, Any]:
        """A candidate as JSON, with its differences to the benchmarks."""
        return {
            "name": candidate.kind,
            "title": TITLES[candidate.kind],
            "chosen": candidate is self.chosen,
            "promotable": any(candidate is tree for tree in self.trees),
            "parameters": candidate.learner.parameters() if candidate.learner else {},
            **candidate.as_json(),
            "against": {
                other.kind: PairedDifference.of(candidate, other).as_json()
                for other in self.benchmarks
                if other is not candidate
            },
        }


def vote(members: Iterable[CrossValidated], repaid: Array, fold: NDArray[np.int64]) -> CrossValidated:
    """The mean of several candidates' scores: what an ensemble would add."""
    scores = np.mean([member.scores for member in members], axis=0)
    return CrossValidated.of(VOTING, None, scores, repaid, fold)


def compare_candidates(
    features: tuple[Feature, ...],
    matrix: Array,
    repaid: Array,
    customers: NDArray[Any],
    *,
    boosting: Mapping[str, Any],
    budget: int,
    max_decision_ms: float,
    options: TrainingOptions = AS_THEY_ARE,
    tell: Callable[[str], object] = lambda _: None,
) -> Comparison:
    """
    Cross-validate every candidate on a training set, `budget` settings of each kind of trees, and choose.

    What replaces the portfolio's XGBoost is compiled first and explained within `max_decision_ms`. The options are the
    trees'; the benchmarks are fitted on rows as they are.
    """
    kinds = tuple(tuple(treated(one, options) for one in kind) for kind in settings_to_try(boosting, budget))
    fold = folds_of(repaid, customers, seed=kinds[0][0].seed)

    def on_folds(learner: Learner) -> CrossValidated:
        result = cross_validate(learner, features, matrix, repaid, fold)
        tell(f"{learner.kind}: AUC {result.auc.mean():.4f} over {len(result.auc)} folds with {learner.parameters()}")
        return result

    tried = tuple(tuple(on_folds(settings) for settings in kind) for kind in kinds)
    trees = tuple(best_of(kind) for kind in tried)
    chosen, reason = choose(trees, lambda one: unfit_to_serve(one, features, matrix, repaid, max_decision_ms))
    return Comparison(
        tried=tried,
        trees=trees,
        vote=vote(trees, repaid, fold),
        benchmarks=tuple(on_folds(learner) for learner in BENCHMARKS),
        chosen=chosen,
        reason=reason,
    )


def compare_continuation(
    learner: ContinuedLearner,
    features: tuple[Feature, ...],
    new: tuple[Array, Array],
    customers: NDArray[Any],
    known: tuple[Array, Array],
) -> Comparison:
    """Cross-validate the continued champion and the benchmarks on new loans; `known` are those of the champion."""
    fold = folds_of(new[1], customers, seed=learner.seed)
    continued = cross_validate(learner, features, *new, fold)
    return Comparison(
        tried=((continued,),),
        trees=(continued,),
        vote=None,
        benchmarks=tuple(cross_validate(one, features, *new, fold, besides=known) for one in BENCHMARKS),
        chosen=continued,
        reason=f"the champion {learner.origin['model_digest'][:12]} was continued with {learner.settings.rounds} "
        f"rounds on {len(customers)} new loans, as the run was configured",
        rule=CONTINUED_RULE,
    )
