"""Facts about the edges of what can be asked: applicants that no loan book holds."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.features.feature import Feature
from cde_domain.governance.facts import MEASURED_HERE, Fact, counted
from cde_domain.model.scoring_model import ScoringModel

Array = NDArray[np.float64]

FAR = 1e6


def edge_case_facts(features: tuple[Feature, ...], model: ScoringModel, policy: Policy, holdout: Array) -> list[Fact]:
    """
    How many edge cases get an unreasonable answer.

    An applicant of whom nothing is known, or with one number far beyond what training saw, must not be approved without
    a person. Every directed feature moved to its least (most) favourable value at once must not raise (lower) a score.
    """
    strange = np.array(list(_strange(features, holdout)))
    scores = model.scores(strange)
    approved = decide_all(features, strange, scores, policy, model) == Outcome.APPROVED.value
    own = model.scores(holdout)
    worst, best = (model.scores(_cornered(features, model, holdout, side)) for side in (-1, 1))
    failed = int((approved | ~np.isfinite(scores)).sum()) + int((worst > own).any()) + int((best < own).any())
    return counted(MEASURED_HERE, {"edge_cases_failed": failed})


def _strange(features: tuple[Feature, ...], holdout: Array) -> Iterator[Array]:
    yield np.full(len(features), np.nan)
    typical = holdout[len(holdout) // 2]
    for position, feature in enumerate(features):
        if not feature.categories:
            for value in (-FAR, FAR):
                row = typical.copy()
                row[position] = value * max(1.0, np.nanmax(np.abs(holdout[:, position]), initial=0.0))
                yield row


def _cornered(features: tuple[Feature, ...], model: ScoringModel, rows: Array, side: int) -> Array:
    """Rows with every directed feature that they know at its least (side -1) or most favourable value of training."""
    cornered = rows.copy()
    for position, (feature, bounds) in enumerate(zip(features, model.ranges, strict=True)):
        if feature.monotone and bounds is not None:
            upwards = side * feature.monotone > 0
            known = ~np.isnan(rows[:, position])
            reach = np.maximum if upwards else np.minimum
            cornered[known, position] = reach(rows[known, position], bounds[1 if upwards else 0])
    return cornered
