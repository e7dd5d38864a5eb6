"""Adverse impact by protected group, with a verdict that knows how little a small group can say."""

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.intervals import ratio_interval

MIN_REPORTED = 30
MIN_VERDICT = 250
SIGNIFICANCE = 0.05
SMALL_BOOK = 5_000  # below it, fairness is measured on out-of-fold predictions of the whole book


class Verdict(StrEnum):
    """What can be said of a group against the reference group."""

    REFERENCE = "reference"
    PASS = "pass"
    FAIL = "fail"
    INSUFFICIENT_DATA = "insufficient_data"
    NOT_COMPUTED = "not_computed"


@dataclass(frozen=True)
class GroupResult:
    """
    Approval of one group: `impact_ratio` is its approval rate over the reference group's (29 CFR 1607.4(D)).

    `interval` is the 95 % interval of that ratio (log method), `p_value` Fisher's exact test of equal rates. They are
    None for the reference group and for groups too small to compute.
    """

    attribute: str
    group: str
    rows: int
    verdict: Verdict
    approval_rate: float | None = None
    review_rate: float | None = None
    impact_ratio: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    compared_with: str | None = None


@dataclass(frozen=True)
class AttributeResult:
    """All groups of one protected attribute; `use` says whether it can stop a promotion."""

    attribute: str
    use: Literal["gate", "report"]
    why: str
    unknown_rows: int
    groups: tuple[GroupResult, ...]

    @property
    def verdict(self) -> Verdict:
        """The attribute's verdict: a failed group fails it, and a group too small to judge is not passed over."""
        verdicts = {group.verdict for group in self.groups}
        if Verdict.FAIL in verdicts:
            return Verdict.FAIL
        if verdicts & {Verdict.INSUFFICIENT_DATA, Verdict.NOT_COMPUTED}:
            return Verdict.INSUFFICIENT_DATA
        return Verdict.PASS if Verdict.PASS in verdicts else Verdict.INSUFFICIENT_DATA

    def as_json(self) -> dict[str, Any]:
        """The result as JSON, with its verdict."""
        plain: dict[str, Any] = json.loads(json.dumps({**asdict(self), "verdict": self.verdict}))
        return plain


def adverse_impact(
    groups: pd.Series,
    approved: NDArray[np.bool_],
    reviewed: NDArray[np.bool_],
    *,
    attribute: str,
    use: Literal["gate", "report"],
    why: str,
    min_ratio: float,
) -> AttributeResult:
    """
    Approval by group against the group that is approved most.

    Groups under 30 rows are not computed. From 30 to 249 rows a group is `insufficient_data`, unless its ratio is
    below `min_ratio` and significantly so; from 250 rows the ratio alone decides. The reference is the most approved
    group of at least 250 rows, or else the largest; a group that is approved significantly less than a smaller, more
    favoured one fails too (Bonferroni over those).
    """
    members = members_of(groups)
    reference = reference_group(members, approved)
    results = [
        _group_result(attribute, group, members, approved, reviewed, reference=str(reference), min_ratio=min_ratio)
        for group in members
    ]
    return AttributeResult(attribute, use, why, int(groups.isna().sum()), tuple(results))


def members_of(groups: pd.Series) -> dict[str, NDArray[np.bool_]]:
    """Which rows belong to each group, by its name in order; a row of unknown group belongs to none."""
    known = groups.notna().to_numpy()
    names = groups.to_numpy(dtype=object).astype(str)
    return {group: known & (names == group) for group in sorted(map(str, set(names[known])))}


def reference_group(members: dict[str, NDArray[np.bool_]], approved: NDArray[np.bool_]) -> str | None:
    """The most approved group of at least 250 rows, or else the largest; None where no group is known."""
    large = {group: member for group, member in members.items() if member.sum() >= MIN_VERDICT}
    if large:
        return max(large, key=lambda group: (float(approved[large[group]].mean()), _seniority(large[group])))
    return max(members, key=lambda group: (int(members[group].sum()), _seniority(members[group])), default=None)


def _seniority(member: NDArray[np.bool_]) -> int:
    # Of two equal groups the one met first in the book, so that no verdict depends on what a group is called.
    return -int(member.argmax())


def _group_result(
    attribute: str,
    group: str,
    members: dict[str, NDArray[np.bool_]],
    approved: NDArray[np.bool_],
    reviewed: NDArray[np.bool_],
    *,
    reference: str,
    min_ratio: float,
) -> GroupResult:
    member = members[group]
    rows = int(member.sum())
    if rows < MIN_REPORTED:
        return GroupResult(attribute, group, rows, Verdict.NOT_COMPUTED)
    rates: dict[str, Any] = {
        "approval_rate": float(approved[member].mean()),
        "review_rate": float(reviewed[member].mean()),
    }
    result = GroupResult(attribute, group, rows, Verdict.REFERENCE, **rates)
    if group != reference:
        result = compare_groups(result, reference, members, approved, min_ratio)
    # A small group cannot be the reference, yet being approved significantly less than one is adverse impact too.
    favoured = [
        other
        for other, others in members.items()
        if other not in (group, reference)
        and int(others.sum()) >= MIN_REPORTED
        and min(rows, int(others.sum())) < MIN_VERDICT
        and float(approved[others].mean()) > rates["approval_rate"]
    ]
    for other in favoured:
        against = compare_groups(result, other, members, approved, min_ratio)
        ratio, p_value = against.impact_ratio, against.p_value
        if ratio is not None and p_value is not None and ratio < min_ratio and p_value < SIGNIFICANCE / len(favoured):
            return replace(against, verdict=Verdict.FAIL)
    return result


def compare_groups(
    result: GroupResult,
    reference: str,
    members: dict[str, NDArray[np.bool_]],
    approved: NDArray[np.bool_],
    min_ratio: float,
) -> GroupResult:
    """A group's result against another of the same attribute, with the verdict of their rows and ratio."""
    from scipy.stats import fisher_exact  # slow to import

    member, others = members[result.group], members[reference]
    rows, all_rows = int(member.sum()), int(others.sum())
    yes, all_yes = int(approved[member].sum()), int(approved[others].sum())
    if not all_yes:
        return replace(result, verdict=Verdict.INSUFFICIENT_DATA, compared_with=reference)
    ratio = yes * all_rows / (rows * all_yes)  # divided once: a ratio of exactly min_ratio is not rounded below it
    p_value = float(fisher_exact([[yes, rows - yes], [all_yes, all_rows - all_yes]]).pvalue)
    below = ratio < min_ratio
    if rows >= MIN_VERDICT:
        verdict = Verdict.FAIL if below else Verdict.PASS
    else:
        verdict = Verdict.FAIL if below and p_value < SIGNIFICANCE else Verdict.INSUFFICIENT_DATA
    return replace(
        result,
        verdict=verdict,
        compared_with=reference,
        impact_ratio=ratio,
        interval=ratio_interval(yes, rows, all_yes, all_rows),
        p_value=p_value,
    )
