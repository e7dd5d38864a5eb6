"""The candidates are cross-validated on the challenger's folds and judged by the declared tolerances."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.governance.alternatives import (
    ComparedGroup,
    Finding,
    GroupFinding,
    JudgedCandidate,
    Tolerances,
    approve_as_many,
    compared_groups,
    findings,
    judge,
    overall,
    pareto_front,
)
from cde_domain.model.compilation import compile_trees
from cde_domain.training.alternatives.book import Book
from cde_domain.training.alternatives.plan import Candidate, plan_candidates
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.candidates.cross_validation import CrossValidated, PairedDifference, cross_validate
from cde_domain.training.challenger import cross_fitted_scores, folds_of
from cde_domain.training.learner import TreeLearner
from cde_domain.training.reductions import Reductions

Array = NDArray[np.float64]
Tell = Callable[[str], object]

CHALLENGER = "challenger"
MOST_ROWS = 6_000


class SearchError(ValueError):
    """A search that cannot be made."""


@dataclass(frozen=True)
class Search:
    """What was searched, and what came of it; the first of `tried` is the challenger itself."""

    tolerances: Tolerances
    rows: int
    rows_available: int
    groups: tuple[ComparedGroup, ...]
    candidates: tuple[Candidate, ...]
    tried: tuple[CrossValidated, ...]
    approvals: NDArray[np.bool_]
    cut_offs: tuple[float, ...]
    at_policy: NDArray[np.bool_]
    judged: tuple[JudgedCandidate, ...]
    findings: tuple[GroupFinding, ...]
    reported: tuple[GroupFinding, ...] = ()

    @property
    def finding(self) -> Finding:
        """Found, refuted, or neither."""
        return overall(self.findings)

    def lowest_ratio(self, approved: NDArray[np.bool_]) -> float | None:
        """The lowest impact ratio of the groups large enough for a refutation, or of all where none is."""
        groups = [group for group in self.groups if group.large] or list(self.groups)
        return min((group.ratio(approved) for group in groups), default=None)

    def as_json(self) -> dict[str, Any]:
        """The whole search as JSON; the less discriminatory alternatives by name, the most adoptable and best first."""
        lowest = [self.lowest_ratio(approved) for approved in self.approvals]
        places = [(float(one.auc.mean()), ratio or 0.0) for one, ratio in zip(self.tried, lowest, strict=True)]
        front = pareto_front(places)
        helping = [
            (candidate, judged) for candidate, judged in zip(self.candidates, self.judged, strict=True) if judged.helps
        ]
        helping.sort(key=lambda pair: (not pair[0].adoptable, -max(gain.gain for gain in pair[1].gains)))
        return {
            "finding": self.finding.value,
            "auc_tolerance": self.tolerances.auc,
            "min_gain": self.tolerances.gain,
            "rows": self.rows,
            "rows_available": self.rows_available,
            "folds": len(self.tried[0].auc),
            "approval_rate": float(self.approvals[0].mean()),
            "n_candidates": len(self.candidates),
            "groups": [found.as_json() for found in self.findings],
            "reported_groups": [found.as_json() for found in self.reported],
            "found": [candidate.name for candidate, _ in helping],
            "challenger": {**self._measured(0), "impact_ratio": lowest[0], "pareto": front[0]},
            "candidates": [
                {
                    **candidate.description(),
                    **self._measured(place),
                    "auc_difference": PairedDifference.of(self.tried[place], self.tried[0]).as_json(),
                    "within_tolerance": judged.within_tolerance,
                    "impact_ratio": lowest[place],
                    "gains": [gain.as_json() for gain in judged.gains],
                    "helps": list(judged.helps),
                    "pareto": front[place],
                    "on_card": bool(front[place] or judged.helps),
                }
                for place, (candidate, judged) in enumerate(zip(self.candidates, self.judged, strict=True), start=1)
            ],
        }

    def _measured(self, place: int) -> dict[str, Any]:
        return {
            **self.tried[place].as_json(),
            "cut_off": self.cut_offs[place],
            "approval_rate_at_policy": float(self.at_policy[place].mean()),
            "impact_ratio_at_policy": self.lowest_ratio(self.at_policy[place]),
        }


def search_alternatives(
    book: Book,
    learner: TreeLearner,
    policy: Policy,
    *,
    boosting: Mapping[str, Any],
    candidates: int,
    tolerances: Tolerances,
    most_rows: int = MOST_ROWS,
    tell: Tell = lambda _: None,
) -> Search:
    """
    Cross-validate at least so many `candidates` on the challenger's folds and judge them by the declared tolerances.

    `learner` is the challenger's. Settings are varied from it, or from the portfolio's for XGBoost where the
    challenger is of another kind. Large books are sampled.

    Raises:
        SearchError: the challenger approves nobody, so that no two models can be compared.
    """
    searched = book.sample(most_rows, seed=learner.seed)
    fold = folds_of(searched.repaid, searched.customers, seed=learner.seed)
    challenger, contributions = _challenger(searched, fold, learner)
    best_case = np.ones(len(searched.repaid))
    allowed = decide_all(searched.features, searched.matrix, best_case, policy) == Outcome.APPROVED
    approved = allowed & (challenger.scores >= policy.approve_at)
    if not approved.any():
        raise SearchError(f"nobody is approved at {policy.approve_at}, so that no two models can be compared")
    groups = compared_groups(searched.attributes, approved)
    base = learner if isinstance(learner, BoostingSettings) else BoostingSettings(**boosting)
    plan = plan_candidates(searched, learner, base, policy, groups, approved, contributions, candidates)
    tried = [challenger, *_cross_validated(searched, fold, plan, tell)]
    equal = [approve_as_many(one.scores, allowed, int(approved.sum())) for one in tried]
    approvals = np.stack([mask for mask, _ in equal])
    names, differences = (
        [candidate.name for candidate in plan],
        [PairedDifference.of(one, challenger).mean for one in tried[1:]],
    )
    judged = judge(names, differences, groups, approvals, searched.customers, tolerances)
    # The same candidates once more for attributes that gate nothing: apart, so that they change no finding of those
    # that do, and beside them, so that nothing is found at a gating group's cost.
    every = (*groups, *compared_groups(searched.reported, approved))
    reported = (
        findings(
            searched.reported,
            every,
            approvals[0],
            judge(names, differences, every, approvals, searched.customers, tolerances),
            tolerances,
        )
        if searched.reported
        else ()
    )
    return Search(
        tolerances=tolerances,
        rows=len(searched.repaid),
        rows_available=len(book.repaid),
        groups=groups,
        candidates=tuple(plan),
        tried=tuple(tried),
        approvals=approvals,
        cut_offs=tuple(cut_off for _, cut_off in equal),
        at_policy=np.stack([allowed & (one.scores >= policy.approve_at) for one in tried]),
        judged=judged,
        findings=findings(searched.attributes, groups, approvals[0], judged, tolerances),
        reported=tuple(found for found in reported if found.attribute in searched.reported),
    )


def _challenger(book: Book, fold: NDArray[np.int64], learner: TreeLearner) -> tuple[CrossValidated, Array]:
    """The challenger's way to learn on the folds, and its out-of-fold contributions."""
    margins, contributions = np.empty(len(book.repaid)), np.empty_like(book.matrix)
    for number in np.unique(fold):
        inside = fold == number
        fitted = learner.fit(book.features, book.matrix[~inside], book.repaid[~inside])
        margins[inside] = fitted.margins(book.matrix[inside])
        contributions[inside] = compile_trees(fitted.ensemble()).explain(book.matrix[inside])[1]
    scores = cross_fitted_scores(margins, book.repaid, fold)
    return CrossValidated.of(CHALLENGER, None, scores, book.repaid, fold), contributions


def _cross_validated(
    book: Book, fold: NDArray[np.int64], plan: Sequence[Candidate], tell: Tell
) -> Iterator[CrossValidated]:
    reduced: dict[tuple[int, str], Array] = {}
    for number, candidate in enumerate(plan, start=1):
        if candidate.reduction is not None and candidate.member is not None:
            key = (id(candidate.member), candidate.reduction.constraint)
            if key not in reduced:
                reduced[key] = _reduced_margins(book, fold, candidate.reduction, candidate.member)
            margins = reduced[key][candidate.reduction.strengths.index(candidate.strength)]
            scores = cross_fitted_scores(margins, book.repaid, fold)
            result = CrossValidated.of(candidate.name, candidate.learner, scores, book.repaid, fold)
        else:
            kept = [place for place, feature in enumerate(book.features) if feature.name not in candidate.without]
            features = tuple(book.features[place] for place in kept)
            matrix = np.ascontiguousarray(book.matrix[:, kept])
            result = cross_validate(candidate.learner, features, matrix, book.repaid, fold)
        tell(f"candidate {number} of {len(plan)}: {candidate.name}, AUC {result.auc.mean():.4f}")
        yield result


def _reduced_margins(book: Book, fold: NDArray[np.int64], reduction: Reductions, member: NDArray[np.bool_]) -> Array:
    """Out-of-fold margins of shape (strengths, rows)."""
    margins = np.empty((len(reduction.strengths), len(book.repaid)))
    for number in np.unique(fold):
        inside = fold == number
        fitted = reduction.fit(book.features, book.matrix[~inside], book.repaid[~inside], member[~inside])
        for place, trees in enumerate(fitted):
            margins[place, inside] = trees.margins(book.matrix[inside])
    return margins
