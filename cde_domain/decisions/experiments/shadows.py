"""How often shadows would have decided otherwise than was answered, and about whom."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cde_domain.decisions.variants import Variant
from cde_domain.governance.fairness import MIN_REPORTED
from cde_domain.intervals import Interval, wilson

BANDS = 10


@dataclass(frozen=True)
class Disagreement:
    """How many decisions of a part came out otherwise; no rate under 30 decisions."""

    by: str
    part: str
    rows: int
    differing: int
    rate: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class ShadowComparison:
    """
    One shadow beside what was answered, on the same applications.

    `answered_to_shadow` counts each pair of decisions. `score_difference` is the mean of shadow minus answered and
    `score_distance` the mean without sign.
    """

    bundle: str
    overall: Disagreement
    answered_to_shadow: Mapping[str, int]
    score_difference: float | None
    score_distance: float | None
    parts: tuple[Disagreement, ...]


def compare_shadows(
    decisions: pd.DataFrame, answered: pd.DataFrame, parts: Mapping[str, pd.Series], bundles: tuple[str, ...]
) -> list[ShadowComparison]:
    """
    Each shadow beside the decisions it followed, by score band, first reason code and part of the population.

    `parts` are aligned with `answered`.
    """
    asked = answered.assign(**{f"part.{by}": column.to_numpy() for by, column in parts.items() if by != "score"})
    shadows = decisions[decisions["variant"] == Variant.SHADOW.value]
    return [
        _comparison(bundle, asked, shadows[shadows["bundle"] == bundle], [by for by in parts if by != "score"])
        for bundle in bundles
    ]


def _comparison(bundle: str, asked: pd.DataFrame, shadows: pd.DataFrame, by: list[str]) -> ShadowComparison:
    taken = shadows[["about", "decision", "score"]].drop_duplicates("about")
    both = asked.merge(taken, left_on="decision_id", right_on="about", suffixes=("", "_shadow"))
    differs = (both["decision"] != both["decision_shadow"]).to_numpy()
    apart = (both["score_shadow"] - both["score"]).dropna().to_numpy()
    pairs = (both["decision"] + " to " + both["decision_shadow"]).value_counts().sort_index()
    reasons = both["reason_codes"].map(lambda codes: codes[0] if len(codes) else "none")
    columns = {
        "score band": _bands(both["score"]),
        "reason": reasons,
        **{name: both[f"part.{name}"] for name in by},
    }
    return ShadowComparison(
        bundle=bundle,
        overall=_rate("all", "all", differs),
        answered_to_shadow={str(pair): int(count) for pair, count in pairs.items()},
        score_difference=float(apart.mean()) if len(apart) else None,
        score_distance=float(np.abs(apart).mean()) if len(apart) else None,
        parts=tuple(
            _rate(name, str(part), differs[(column == part).to_numpy()])
            for name, column in columns.items()
            for part in sorted(column.unique(), key=str)
        ),
    )


def _bands(scores: pd.Series) -> pd.Series:
    band = np.minimum(np.floor(scores * BANDS), BANDS - 1)
    return band.map(lambda low: f"{low / BANDS:.1f} to {(low + 1) / BANDS:.1f}", na_action="ignore").fillna("no score")


def _rate(by: str, part: str, differs: np.ndarray) -> Disagreement:
    rows, count = len(differs), int(differs.sum())
    if rows < MIN_REPORTED:
        return Disagreement(by, part, rows, count)
    return Disagreement(by, part, rows, count, count / rows, wilson(count, rows))
