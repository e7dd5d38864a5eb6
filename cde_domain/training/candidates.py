"""Candidates for the challenger: every way to learn on the same folds, and the rule that chooses one."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from cde_domain.features.feature import Feature
from cde_domain.model import metrics
from cde_domain.model.compilation import CannotCompileError, compile_trees
from cde_domain.model.compiled import CompiledTrees
from cde_domain.training.boosting import BoostedTrees, BoostingSettings
from cde_domain.training.challenger import cross_fitted_scores, folds_of
from cde_domain.training.continuation import ContinuedLearner
from cde_domain.training.forest import Forest, ForestSettings
from cde_domain.training.histogram import HistogramSettings, HistogramTrees
from cde_domain.training.learner import Learner, TreeLearner
from cde_domain.training.linear import LogisticScore, LogisticSettings
from cde_domain.training.options import AS_THEY_ARE, TrainingOptions, TreatedLearner, WinsorisedTrees
from cde_domain.training.scorecard import PointsScorecard, ScorecardSettings

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
EXPLAINED_ROWS = 2_000
TIMED_ROWS = 300
BENCHMARKS: tuple[Learner, ...] = (ScorecardSettings(), LogisticSettings())
TREES: Mapping[str, type] = {kind.kind: kind for kind in (BoostingSettings, HistogramSettings, ForestSettings)}
RULE = (
    "On the same folds, with the customers of a fold in no other, the portfolio's XGBoost settings stay unless another "
    "candidate has a mean AUC higher by more than one standard error of the paired differences and a mean Brier score "
    "that is not higher, can be compiled, and is explained within the portfolio's limit for a decision."
)


CONTINUED_RULE = (
    "Rounds are added behind the champion's trees on loans that it did not learn from. In every fold they are added "
    "anew without it; the benchmarks also learn from the champion's loans, and all are measured on the new ones."
)


def learner_of(description: Mapping[str, Any]) -> TreeLearner:
    """The tree learner that `describe` described; of a continued one, that of the whole model."""
    learner: TreeLearner = TREES[description["kind"]](**description["settings"])
    return treated(learner, TrainingOptions(**description.get("options", {})))


def treated(learner: TreeLearner, options: TrainingOptions) -> TreeLearner:
    """A learner with the options of training."""
    return learner if options.are_off else TreatedLearner(learner, options)


def describe(learner: Learner | None) -> dict[str, Any]:
    """A learner as JSON."""
    if isinstance(learner, ContinuedLearner):
        return learner.describe()
    if isinstance(learner, TreatedLearner):
        return describe(learner.learner) | {"options": asdict(learner.options)}
    assert isinstance(learner, BoostingSettings | HistogramSettings | ForestSettings)
    return {"kind": learner.kind, "settings": asdict(learner)}


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
class CrossValidated:
    """A learner on the folds: out-of-fold scores, calibrated on the other folds, and its measures fold by fold."""

    kind: str
    learner: Learner | None
    scores: Array
    auc: Array
    brier: Array
    log_loss: Array

    @classmethod
    def of(
        cls, kind: str, learner: Learner | None, scores: Array, repaid: Array, fold: NDArray[np.int64]
    ) -> "CrossValidated":
        """Measure out-of-fold scores in every fold."""
        parts = [fold == number for number in np.unique(fold)]

        def each(measure: Callable[[Array, Array], float]) -> Array:
            return np.array([measure(repaid[part], scores[part]) for part in parts])

        return cls(kind, learner, scores, each(metrics.auc), each(metrics.brier), each(metrics.log_loss))

    def as_json(self) -> dict[str, Any]:
        """Mean, standard deviation and values by fold of each measure."""
        return {
            name: value
            for measure in ("auc", "brier", "log_loss")
            for values in [getattr(self, measure)]
            for name, value in (
                (f"{measure}_mean", float(values.mean())),
                (f"{measure}_sd", float(values.std(ddof=1))),
                (f"{measure}_by_fold", values.tolist()),
            )
        }


def cross_validate(
    learner: Learner,
    features: tuple[Feature, ...],
    matrix: Array,
    repaid: Array,
    fold: NDArray[np.int64],
    *,
    besides: tuple[Array, Array] | None = None,
) -> CrossValidated:
    """Fit on all folds but one, and on the rows and labels of `besides`; score that one, for every fold."""
    margins = np.empty(len(repaid))
    for number in np.unique(fold):
        inside = fold == number
        rows, labels = matrix[~inside], repaid[~inside]
        if besides is not None:
            rows, labels = np.vstack([besides[0], rows]), np.concatenate([besides[1], labels])
        margins[inside] = learner.fit(features, rows, labels).margins(matrix[inside])
    return CrossValidated.of(learner.kind, learner, cross_fitted_scores(margins, repaid, fold), repaid, fold)


def vote(members: Iterable[CrossValidated], repaid: Array, fold: NDArray[np.int64]) -> CrossValidated:
    """The mean of several candidates' scores: what an ensemble would add."""
    scores = np.mean([member.scores for member in members], axis=0)
    return CrossValidated.of(VOTING, None, scores, repaid, fold)


@dataclass(frozen=True)
class PairedDifference:
    """
    The mean difference in a measure of two candidates over the folds.

    The standard error allows for training sets that overlap (Nadeau and Bengio 2003); the interval is Student's.
    """

    mean: float
    standard_error: float
    interval: tuple[float, float]

    @classmethod
    def of(
        cls, first: CrossValidated, second: CrossValidated, measure: Literal["auc", "brier"] = "auc"
    ) -> "PairedDifference":
        """First minus second."""
        differences = getattr(first, measure) - getattr(second, measure)
        folds = len(differences)
        error = float(np.sqrt((1 / folds + 1 / (folds - 1)) * differences.var(ddof=1)))
        mean, reach = float(differences.mean()), float(student.ppf(0.975, folds - 1)) * error
        return cls(mean, error, (mean - reach, mean + reach))

    @property
    def exceeds_one_error(self) -> bool:
        """Whether the first is better by more than one standard error."""
        return self.mean > self.standard_error

    def as_json(self) -> dict[str, Any]:
        """The difference as JSON."""
        return {"mean": self.mean, "standard_error": self.standard_error, "interval": list(self.interval)}


def best_of(tried: Iterable[CrossValidated]) -> CrossValidated:
    """
    The first one, unless later ones replace it; then that of the highest AUC.

    A later one replaces it with a higher AUC, by more than one standard error, and a Brier score that is not higher: a
    better order of the applicants is not bought with worse probabilities, which the cut-offs are about.
    """
    first, *others = tried
    better = [
        other
        for other in others
        if PairedDifference.of(other, first).exceeds_one_error and other.brier.mean() <= first.brier.mean()
    ]
    return max(better, key=lambda candidate: candidate.auc.mean(), default=first)


def choose(
    candidates: Iterable[CrossValidated], unfit: Callable[[CrossValidated], str] = lambda _: ""
) -> tuple[CrossValidated, str]:
    """
    The candidate that becomes the challenger, and why; XGBoost comes first.

    `unfit` says why another that would win cannot be served, or nothing; then the next best is looked at.
    """
    first, *others = candidates
    refused: list[str] = []
    while (chosen := best_of([first, *others])) is not first and (why := unfit(chosen)):
        others = [other for other in others if other is not chosen]
        refused.append(f"; {chosen.kind} cannot be served: {why}")
    passed_over = "".join(refused)
    if chosen is not first:
        difference, brier = PairedDifference.of(chosen, first), PairedDifference.of(chosen, first, "brier")
        return chosen, (
            f"{chosen.kind} has a mean AUC of {chosen.auc.mean():.4f} over {len(chosen.auc)} folds, "
            f"{difference.mean:.4f} above {first.kind}: more than one standard error ({difference.standard_error:.4f})"
            f"; its Brier score differs by {brier.mean:+.5f}{passed_over}"
        )
    rivals = [
        (PairedDifference.of(other, first), PairedDifference.of(other, first, "brier"), other.kind) for other in others
    ]
    said = [
        f"{kind} differs by {difference.mean:+.4f} (standard error {difference.standard_error:.4f}), "
        f"in its Brier score by {brier.mean:+.5f}"
        for difference, brier, kind in rivals
    ]
    return first, (
        f"{first.kind} has a mean AUC of {first.auc.mean():.4f} over {len(first.auc)} folds, and no other candidate "
        f"that can be served is better by more than one standard error without a higher Brier score"
        + (f": {'; '.join(said)}" if said else "")
        + passed_over
    )


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


def unfit_to_serve(
    candidate: CrossValidated, features: tuple[Feature, ...], matrix: Array, repaid: Array, max_decision_ms: float
) -> str:
    """Why a candidate fitted on the whole training set cannot be served: it does not compile or takes too long."""
    assert candidate.learner is not None
    fitted = candidate.learner.fit(features, matrix, repaid)
    assert isinstance(fitted, BoostedTrees | HistogramTrees | Forest | WinsorisedTrees)
    try:
        trees = compile_trees(fitted.ensemble())
    except CannotCompileError as error:
        return str(error)
    taken = _explanation_us(trees, matrix[:TIMED_ROWS]) / 1000
    return "" if taken <= max_decision_ms else f"an explanation takes {taken:.1f} ms, {max_decision_ms:g} are allowed"


def final_facts(learner: Learner, features: tuple[Feature, ...], matrix: Array, repaid: Array) -> dict[str, Any]:
    """
    What a candidate fitted on the whole training set looks like: its importances, and the scorecard's points.

    Of trees also the size of the compiled form and the median time of one explanation.
    """
    fitted = learner.fit(features, matrix, repaid)
    sample = matrix[:EXPLAINED_ROWS]
    if isinstance(fitted, BoostedTrees | HistogramTrees | Forest | WinsorisedTrees):
        trees = compile_trees(fitted.ensemble())
        return {
            "importance": _importance(features, np.abs(trees.explain(sample)[1]).mean(axis=0)),
            "served_megabytes": trees.megabytes,
            "explanation_us": _explanation_us(trees, matrix[:TIMED_ROWS]),
        }
    facts: dict[str, Any] = {}
    if isinstance(fitted, PointsScorecard | LogisticScore):
        facts["importance"] = _importance(features, fitted.importance(sample))
    if isinstance(fitted, PointsScorecard):
        facts["points"] = fitted.card()
    return facts


def _explanation_us(trees: CompiledTrees, matrix: Array) -> float:
    times = []
    for row in matrix:
        began = time.perf_counter()
        trees.explain(row[None])
        times.append(time.perf_counter() - began)
    return float(np.median(times) * 1e6)


def _importance(features: tuple[Feature, ...], strength: Array) -> list[dict[str, Any]]:
    return [
        {"feature": features[position].name, "mean_absolute_contribution": float(strength[position])}
        for position in np.argsort(-strength, kind="stable")
    ]
