"""Where the variants differ: by feature, and by protected group where that was collected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.decisions.experiments.sequences import Arm, mean_sequence
from cde_domain.decisions.monitoring.recorded import FEATURE_PREFIX
from cde_domain.features.feature import Feature
from cde_domain.governance.fairness import MIN_REPORTED, members_of, reference_group
from cde_domain.intervals import LEVEL, Interval, newcombe, ratio_interval
from cde_domain.loan_book import PROTECTED_PREFIX
from cde_domain.portfolio.protected import ProtectedAttribute

PARTS = 5


@dataclass(frozen=True)
class Slice:
    """
    Approval by both variants in one part of the population.

    `interval` is Newcombe's of the difference, with Bonferroni's correction over all slices: it tells where to look,
    and nothing is decided by it. Under 30 customers of a variant there are no rates.
    """

    by: str
    part: str
    challenger_rows: int
    champion_rows: int
    challenger: float | None = None
    champion: float | None = None
    interval: Interval | None = None

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out no difference."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def parts_of(first: pd.DataFrame, features: Sequence[Feature], named: Sequence[str]) -> dict[str, pd.Series]:
    """
    The part of the population that each row belongs to, by feature: categories, and fifths of the features `named`.

    A row whose value is unknown belongs to the part "unknown".
    """
    parts = {}
    for feature in features:
        column = first.get(FEATURE_PREFIX + feature.name)
        if column is None or not (feature.categories or feature.name in named):
            continue
        parts[feature.name] = (
            column.map(dict(enumerate(feature.categories))) if feature.categories else _fifths(column)
        ).fillna("unknown")
    if first["score"].notna().sum() >= PARTS:
        parts["score"] = _fifths(first["score"]).fillna("unknown")
    return parts


def _fifths(values: pd.Series) -> pd.Series:
    labels = pd.qcut(values, PARTS, labels=False, duplicates="drop")
    return labels.map(lambda number: f"fifth {int(number) + 1}", na_action="ignore").astype(object)


def slices_of(first: pd.DataFrame, parts: Mapping[str, pd.Series]) -> list[Slice]:
    """The approval of both variants in each part; only customers of steps that compare should be given."""
    approved = (first["decision"] == "APPROVED").to_numpy()
    challenger = first["by_challenger"].to_numpy(dtype=bool)
    cells = [
        (by, str(part), member & challenger, member & ~challenger)
        for by, column in parts.items()
        for part in sorted(column.unique(), key=str)
        for member in [(column == part).to_numpy()]
    ]
    judged = sum(min(int(one.sum()), int(other.sum())) >= MIN_REPORTED for _, _, one, other in cells)
    return [_slice(by, part, approved, one, other, LEVEL / max(1, judged)) for by, part, one, other in cells]


def _slice(
    by: str, part: str, approved: NDArray[np.bool_], one: NDArray[np.bool_], other: NDArray[np.bool_], level: float
) -> Slice:
    rows, others = int(one.sum()), int(other.sum())
    if min(rows, others) < MIN_REPORTED:
        return Slice(by, part, rows, others)
    good, goods = int(approved[one].sum()), int(approved[other].sum())
    interval = newcombe(good, rows, goods, others, level=level)
    return Slice(by, part, rows, others, good / rows, goods / others, interval)


@dataclass(frozen=True)
class GroupRatio:
    """
    One group's approval over that of the reference group, among the customers of one variant.

    `interval` is the 95 % interval; `highest` is the upper end of a ratio of confidence sequences, which holds at all
    times: only the challenger's can breach, and only that of an attribute that gates.
    """

    attribute: str
    use: Literal["gate", "report"]
    variant: Literal["challenger", "champion"]
    group: str
    reference: str
    rows: int
    ratio: float | None = None
    interval: Interval | None = None
    highest: float | None = None

    def breached(self, min_ratio: float) -> bool:
        """Whether the group is approved less than `min_ratio` times as often, with the whole interval."""
        gates = self.use == "gate" and self.variant == "challenger"
        return gates and self.highest is not None and self.highest < min_ratio


def group_ratios(first: pd.DataFrame, attributes: Sequence[ProtectedAttribute], alpha: float) -> list[GroupRatio]:
    """The impact ratios of every group that was collected, by variant; groups under 30 rows have none."""
    return [
        ratio
        for attribute in attributes
        if (column := first.get(PROTECTED_PREFIX + attribute.name)) is not None and column.notna().any()
        for variant in ("challenger", "champion")
        for ratio in _ratios(first, column, attribute, variant, alpha / len(attributes))
    ]


def _ratios(
    first: pd.DataFrame,
    column: pd.Series,
    attribute: ProtectedAttribute,
    variant: Literal["challenger", "champion"],
    alpha: float,
) -> Iterator[GroupRatio]:
    chosen = (first["by_challenger"] == (variant == "challenger")).to_numpy()
    approved = (first["decision"] == "APPROVED").to_numpy()[chosen]
    members = members_of(column[chosen])
    reference = reference_group(members, approved)
    for group, member in members.items():
        if group == reference or reference is None:
            continue
        arms = [Arm(int(one.sum()), float(approved[one].sum())) for one in (member, members[reference])]
        told = (attribute.name, attribute.use, variant, group, str(reference), arms[0].rows)
        if min(arm.rows for arm in arms) < MIN_REPORTED or not arms[1].total:
            yield GroupRatio(*told)
            continue
        # The reference is chosen by the data, so the sequences of all groups have to hold together.
        (_, high), (low, _) = (mean_sequence(arm, alpha / len(members)) for arm in arms)
        counts = (int(arms[0].total), arms[0].rows, int(arms[1].total), arms[1].rows)
        yield GroupRatio(
            *told,
            ratio=(counts[0] / counts[1]) / (counts[2] / counts[3]),
            interval=ratio_interval(*counts),
            highest=high / low if low > 0 else None,
        )
