"""What is tried beside the challenger: other settings, features left out, and training under a constraint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.policy import Policy
from cde_domain.features.feature import Feature
from cde_domain.governance.alternatives import ComparedGroup
from cde_domain.training.alternatives.book import Book
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.candidates.descriptions import describe
from cde_domain.training.learner import TreeLearner
from cde_domain.training.reductions import CONSTRAINTS, Reductions

Array = NDArray[np.float64]

SETTINGS = 8
MOST_REDUCTIONS = 8
STRENGTHS = (0.15, 0.3, 0.6)
SINGLES = 6  # features tried alone before pairs of them


@dataclass(frozen=True)
class Candidate:
    """
    One model to try beside the challenger.

    `learner` is fitted on all features but those in `without`; a reduction has `reduction` and `strength` instead, and
    works for `member`. `adopt` says what makes it the challenger, and `adoptable` whether the portfolio's settings can.
    """

    name: str
    family: Literal["settings", "features", "reduction"]
    adopt: str
    learner: TreeLearner
    without: tuple[str, ...] = ()
    reduction: Reductions | None = None
    strength: float = 0.0
    member: NDArray[np.bool_] | None = field(default=None, repr=False)

    @property
    def adoptable(self) -> bool:
        """Whether the settings of a portfolio can make it the challenger."""
        return self.reduction is None

    def description(self) -> dict[str, Any]:
        """What it is, as JSON."""
        return {
            "name": self.name,
            "family": self.family,
            "adopt": self.adopt,
            "adoptable": self.adoptable,
            "learner": describe(self.learner),
            "without": list(self.without),
            "constraint": self.reduction.constraint if self.reduction else None,
            "strength": self.strength if self.reduction else None,
        }


def plan_candidates(
    book: Book,
    learner: TreeLearner,
    base: BoostingSettings,
    policy: Policy,
    groups: Sequence[ComparedGroup],
    approved: NDArray[np.bool_],
    contributions: Array,
    count: int,
) -> list[Candidate]:
    """
    At least `count` candidates: all reductions and the first settings, then dropped features, then more settings.

    Settings vary `base`; features are dropped from the challenger's `learner` by its out-of-fold `contributions`.
    """
    settings = _settings(base)
    reductions = _reductions(base, groups, approved)
    dropped = _dropped(book.features, learner, _most_dividing(book.features, policy, groups, contributions))
    first = [*reductions, *settings[:SETTINGS]]
    plan = [*first, *dropped[: max(count - len(first), 0)]]
    return plan + settings[SETTINGS : SETTINGS + max(count - len(plan), 0)]


def _settings(base: BoostingSettings) -> list[Candidate]:
    """Shallower, shorter and more regularised trees than the base, each change alone and then combined."""
    alone: list[dict[str, Any]] = [
        {"max_depth": max(base.max_depth - 1, 1)},
        {"max_depth": 1},
        {"rounds": max(base.rounds // 2, 1)},
        {"rounds": max(base.rounds // 4, 1)},
        {"reg_lambda": 4 * max(base.reg_lambda, 1.0)},
        {"reg_lambda": 16 * max(base.reg_lambda, 1.0)},
        {"min_child_weight": 4 * max(base.min_child_weight, 1.0)},
        {"min_child_weight": 16 * max(base.min_child_weight, 1.0)},
        {"colsample_bytree": base.colsample_bytree / 2},
        {"subsample": base.subsample / 2},
    ]
    combined = (
        {"max_depth": depth, "reg_lambda": factor * max(base.reg_lambda, 1.0), "rounds": max(base.rounds // less, 1)}
        for depth, factor, less in product((1, 2), (4, 16, 64), (1, 2, 4))
    )
    found: dict[BoostingSettings, dict[str, Any]] = {}
    for changes in (*alone, *combined):
        settings = replace(base, **changes)
        if settings != base:
            found.setdefault(settings, {key: value for key, value in changes.items() if value != getattr(base, key)})
    return [
        Candidate(
            _named(changes),
            "settings",
            f"set {_named(changes)} in the portfolio's boosting",
            settings,
        )
        for settings, changes in found.items()
    ]


def _named(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value:g}" for key, value in changes.items())


def _most_dividing(
    features: tuple[Feature, ...], policy: Policy, groups: Sequence[ComparedGroup], contributions: Array
) -> list[str]:
    """
    The features by how much of a group's lower mean margin they bring about, most first.

    That is the difference of their mean contributions, largest over the groups. Features that a rule of the policy
    decides on stay: without them the rule could not be applied.
    """
    shares = np.zeros(len(features))
    for group in groups:
        gap = contributions[group.others].mean(axis=0) - contributions[group.member].mean(axis=0)
        shares = np.maximum(shares, gap if gap.sum() > 0 else -gap)
    ruled = {rule.when.feature for rule in policy.rules}
    return [features[place].name for place in np.argsort(-shares, kind="stable") if features[place].name not in ruled]


def _dropped(features: tuple[Feature, ...], learner: TreeLearner, ranked: Sequence[str]) -> list[Candidate]:
    """The most dividing features left out alone, in pairs and in threes, and at least one feature left in."""
    leading = ranked[:SINGLES]
    sets: Iterable[tuple[str, ...]] = (
        *((name,) for name in leading),
        *combinations(ranked[:3], 2),
        tuple(ranked[:3]),
        tuple(ranked[:4]),
        *combinations(leading, 2),
        *((name,) for name in ranked[SINGLES:]),
        *combinations(leading, 3),
    )
    unique = [names for names in dict.fromkeys(sets) if 0 < len(names) < len(features)]
    return [
        Candidate(
            f"without {', '.join(names)}",
            "features",
            f"take {', '.join(names)} out of the portfolio's features",
            learner,
            without=names,
        )
        for names in unique
    ]


def _reductions(
    base: BoostingSettings, groups: Sequence[ComparedGroup], approved: NDArray[np.bool_]
) -> list[Candidate]:
    """For the least approved large group of each attribute, two constraints in a few strengths."""
    least: dict[str, tuple[float, str, NDArray[np.bool_]]] = {}
    for group in [group for group in groups if group.large] or groups:
        for name, member in ((group.group, group.member), (group.reference, group.others)):
            rate = float(approved[member].mean())
            if group.attribute not in least or rate < least[group.attribute][0]:
                least[group.attribute] = (rate, name, member)
    # The middle strength first: with many attributes there is no room for all.
    wanted = list(product((STRENGTHS[1], STRENGTHS[0], STRENGTHS[2]), CONSTRAINTS, least))[:MOST_REDUCTIONS]
    strengths: dict[tuple[str, str], tuple[float, ...]] = {}
    for strength, constraint, attribute in wanted:
        strengths[constraint, attribute] = (*strengths.get((constraint, attribute), ()), strength)
    return [
        Candidate(
            f"{constraint} for {attribute}={least[attribute][1]}, strength {strength:g}",
            "reduction",
            "train with weights that depend on the protected group: that takes legal sign-off, and no setting does it",
            base,
            reduction=Reductions(constraint, of_one, base),
            strength=strength,
            member=least[attribute][2],
        )
        for (constraint, attribute), of_one in strengths.items()
        for strength in of_one
    ]
