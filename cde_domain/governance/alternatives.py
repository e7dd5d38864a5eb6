"""
Less discriminatory alternatives: does a model exist that is as accurate and treats groups more alike?

Find or refute: Gillis, Meursault and Ustun, FAccT 2024.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.governance.fairness import MIN_REPORTED, MIN_VERDICT, SIGNIFICANCE, members_of, reference_group
from cde_domain.intervals import Z, holm

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

DRAWS = 1_000
TIES = 0.01  # a model with few different scores may approve so many more or less, and is not compared beyond
RULE = (
    "Every candidate approves as many applications as the challenger does at the policy's cut-off, so that approving "
    "more people is not taken for treating them more alike. A candidate is a less discriminatory alternative if its "
    "mean AUC on the same folds is not lower than the challenger's by more than the tolerance, the impact ratio of a "
    "group rises by the stated gain and by more than chance (customers drawn anew, one-sided, Holm over all candidates "
    "within the tolerance and all groups), and the ratio of no other group falls by as much."
)


class Finding(StrEnum):
    """What the search says; `INSUFFICIENT_DATA` is neither a finding nor a refutation."""

    FOUND = "found"
    REFUTED = "refuted"
    INSUFFICIENT_DATA = "insufficient_data"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True)
class Tolerances:
    """What was declared before the search: the AUC that may be lost, and the impact ratio that must be gained."""

    auc: float
    gain: float


@dataclass(frozen=True)
class ComparedGroup:
    """A group of a protected attribute and the group it is compared with, as masks of shape (rows,)."""

    attribute: str
    group: str
    reference: str
    member: Mask
    others: Mask

    @property
    def large(self) -> bool:
        """Whether both groups are large enough for a refutation."""
        return min(int(self.member.sum()), int(self.others.sum())) >= MIN_VERDICT

    def ratio(self, approved: Mask) -> float:
        """
        The approval rate over the reference group's, or its inverse where the group is approved more.

        So 1 is parity, and a model that only turns a disadvantage round gains nothing.
        """
        low, high = sorted((float(approved[self.member].mean()), float(approved[self.others].mean())))
        return low / high if high > 0 else 1.0


def compared_groups(attributes: Mapping[str, pd.Series], approved: Mask) -> tuple[ComparedGroup, ...]:
    """Every group of at least 30 rows against its attribute's reference group, by the challenger's approvals."""
    found: list[ComparedGroup] = []
    for attribute, groups in attributes.items():
        members = {group: member for group, member in members_of(groups).items() if member.sum() >= MIN_REPORTED}
        reference = reference_group(members, approved)
        if reference is None:
            continue
        found += [
            ComparedGroup(attribute, group, reference, member, members[reference])
            for group, member in members.items()
            if group != reference
        ]
    return tuple(found)


def approve_as_many(scores: Array, allowed: Mask, count: int) -> tuple[Mask, float]:
    """
    The `count` best-scored of the allowed rows, and the cut-off that approves just them.

    Equal scores are never told apart, so ties at the cut-off are all approved, or all not where that is nearer.
    """
    ranked = scores[allowed]
    cut_off = float(np.sort(ranked)[-count])
    above = ranked[ranked > cut_off]
    if len(above) and count - len(above) < (ranked >= cut_off).sum() - count:
        cut_off = float(above.min())
    return allowed & (scores >= cut_off), cut_off


def standard_errors(
    groups: Sequence[ComparedGroup], approvals: NDArray[np.bool_], customers: NDArray[Any], *, seed: int = 0
) -> Array:
    """
    Bootstrap standard errors of every candidate's gain in ratio over the first row of `approvals`.

    `approvals` has shape (1 + candidates, rows), the challenger first; the result (candidates, groups). Customers are
    drawn with all their applications, the same draw for challenger and candidates. In a draw that turns a disadvantage
    round the ratio is held at 1: its inverse would fall where the ratio rises, and let the error look too large.
    """
    codes, names = pd.factorize(customers)
    random = np.random.default_rng(seed)
    size = len(names)
    draws = np.stack([np.bincount(random.integers(0, size, size), minlength=size) for _ in range(DRAWS)])
    weights = draws.astype(np.float32)

    def per_draw(mask: Mask) -> Array:
        # Sums over customers first: a draw is then one row of a small matrix product.
        summed = np.stack([np.bincount(codes, weights=row, minlength=size) for row in np.atleast_2d(mask)])
        return (weights @ summed.T.astype(np.float32)).astype(np.float64)

    errors = np.empty((len(approvals) - 1, len(groups)))
    for position, group in enumerate(groups):
        below, above = sorted((group.member, group.others), key=lambda mask: float(approvals[0][mask].mean()))
        low, high = (per_draw(approvals & mask) / np.maximum(per_draw(mask), 1.0) for mask in (below, above))
        highest = np.maximum(low, high)
        ratios = np.where(highest > 0, low / np.where(highest > 0, highest, 1.0), 1.0)
        errors[:, position] = (ratios[:, 1:] - ratios[:, :1]).std(axis=0, ddof=1)
    return errors


@dataclass(frozen=True)
class Gain:
    """
    What a candidate changes for one group: its impact ratio and how much that lies above the challenger's.

    `interval` is the 95 % bootstrap interval of the gain; `p_holm` is None where the candidate was not tested, being
    beyond the tolerance or the group being at parity already.
    """

    attribute: str
    group: str
    impact_ratio: float
    gain: float
    interval: tuple[float, float]
    p_holm: float | None
    harms: bool

    def as_json(self) -> dict[str, Any]:
        """The gain as JSON."""
        return {**vars(self), "interval": list(self.interval)}


@dataclass(frozen=True)
class JudgedCandidate:
    """A candidate with its gains, one for each compared group in order; `helps` names the groups it is found for."""

    name: str
    within_tolerance: bool
    gains: tuple[Gain, ...]
    helps: tuple[str, ...]


def judge(
    names: Sequence[str],
    auc_differences: Sequence[float],
    groups: Sequence[ComparedGroup],
    approvals: NDArray[np.bool_],
    customers: NDArray[Any],
    tolerances: Tolerances,
) -> tuple[JudgedCandidate, ...]:
    """Judge candidates by the rule; `approvals` as in `standard_errors`, `auc_differences` less the challenger's."""
    ratios = np.array([group.ratio(approved) for approved in approvals for group in groups]).reshape(len(approvals), -1)
    gains, errors = ratios[1:] - ratios[0], standard_errors(groups, approvals, customers)
    counts = approvals.sum(axis=1)
    comparable = np.abs(counts[1:] - counts[0]) <= TIES * counts[0]
    within = comparable & (np.array(auc_differences) >= -tolerances.auc)
    tested = within[:, None] & (ratios[0] <= 1 - tolerances.gain)
    adjusted = np.full(gains.shape, np.nan)
    adjusted[tested] = holm([_one_sided(*pair) for pair in zip(gains[tested], errors[tested], strict=True)])
    low, high = gains - Z * errors, gains + Z * errors
    large = np.array([group.large for group in groups], dtype=bool)
    # What a small group seems to lose may be chance; what a large one loses counts as it stands.
    harms = (gains <= -tolerances.gain) & (large | (high < 0))
    helps = tested & (gains >= tolerances.gain) & (adjusted < SIGNIFICANCE) & ~harms.any(axis=1)[:, None]
    return tuple(
        JudgedCandidate(
            name,
            bool(within[row]),
            tuple(
                Gain(
                    group.attribute,
                    group.group,
                    float(ratios[row + 1, column]),
                    float(gains[row, column]),
                    (float(low[row, column]), float(high[row, column])),
                    float(adjusted[row, column]) if tested[row, column] else None,
                    bool(harms[row, column]),
                )
                for column, group in enumerate(groups)
            ),
            tuple(f"{group.attribute}={group.group}" for group, found in zip(groups, helps[row], strict=True) if found),
        )
        for row, name in enumerate(names)
    )


def _one_sided(gain: float, error: float) -> float:
    return 1 - NormalDist().cdf(gain / error) if error > 0 else 1.0


@dataclass(frozen=True)
class GroupFinding:
    """What the search says of one group, and why; `impact_ratio` is the challenger's, None for a group under 30."""

    attribute: str
    group: str
    rows: int
    finding: Finding
    why: str
    compared_with: str | None = None
    impact_ratio: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The finding as JSON."""
        return {**vars(self), "finding": self.finding.value}


def findings(
    attributes: Mapping[str, pd.Series],
    groups: Sequence[ComparedGroup],
    approved: Mask,
    judged: Sequence[JudgedCandidate],
    tolerances: Tolerances,
) -> tuple[GroupFinding, ...]:
    """A finding for every group but the reference groups, those too small to compute included."""
    compared = [
        GroupFinding(
            group.attribute,
            group.group,
            int(group.member.sum()),
            *_finding(group, position, group.ratio(approved), judged, tolerances),
            compared_with=group.reference,
            impact_ratio=group.ratio(approved),
        )
        for position, group in enumerate(groups)
    ]
    left_out = [
        GroupFinding(attribute, name, int(member.sum()), Finding.INSUFFICIENT_DATA, "too few to compute")
        for attribute, series in attributes.items()
        for name, member in members_of(series).items()
        if member.sum() < MIN_REPORTED
    ]
    alone = [
        GroupFinding(attribute, "all", len(series), Finding.INSUFFICIENT_DATA, "there are no two groups to compare")
        for attribute, series in attributes.items()
        if attribute not in {found.attribute for found in (*compared, *left_out)}
    ]
    return (*compared, *left_out, *alone)


def _finding(
    group: ComparedGroup,
    position: int,
    ratio: float,
    judged: Sequence[JudgedCandidate],
    tolerances: Tolerances,
) -> tuple[Finding, str]:
    subject = f"{group.attribute}={group.group}"
    helping = [candidate for candidate in judged if subject in candidate.helps]
    if helping:
        best = max(helping, key=lambda candidate: candidate.gains[position].gain)
        gain = best.gains[position]
        return Finding.FOUND, f"{best.name} raises its impact ratio by {gain.gain:.3f} (p {gain.p_holm:.4f} after Holm)"
    if ratio > 1 - tolerances.gain:
        if group.large:
            return Finding.REFUTED, "so near to parity that no model can gain as much as was declared"
        return Finding.INSUFFICIENT_DATA, "near to parity, but too few people to be sure of it"
    able = [
        candidate
        for candidate in judged
        if candidate.within_tolerance and not any(gain.harms for gain in candidate.gains)
    ]
    best_able = max(able, key=lambda candidate: candidate.gains[position].gain, default=None)
    if best_able is None:
        said = "no candidate without harm to another group is within the tolerance"
    else:
        said = f"of the candidates within the tolerance {best_able.name} does most, "
        said += f"{best_able.gains[position].gain:+.3f}"
        if best_able.gains[position].gain >= tolerances.gain:
            return (
                Finding.INSUFFICIENT_DATA,
                f"{said}, which may be chance (p {best_able.gains[position].p_holm:.2f} after Holm)",
            )
    if not group.large:
        return Finding.INSUFFICIENT_DATA, f"{said}, but there are too few people to refute that more is possible"
    return Finding.REFUTED, said


def overall(found: Iterable[GroupFinding]) -> Finding:
    """Found for one group is found; a group that nothing can be said of leaves the search open."""
    kinds = {group.finding for group in found}
    for kind in (Finding.FOUND, Finding.INSUFFICIENT_DATA):
        if kind in kinds:
            return kind
    return Finding.REFUTED


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of points that are better the higher both coordinates are: which have none at least as good in both."""
    return [
        not any(
            other[0] >= point[0] and other[1] >= point[1] and other != point and index != position
            for index, other in enumerate(points)
        )
        for position, point in enumerate(points)
    ]
