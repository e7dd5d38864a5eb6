"""Approval where two protected attributes meet: a model can be fair by each and unfair by both."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.governance.fairness import (
    MIN_VERDICT,
    SIGNIFICANCE,
    GroupResult,
    Verdict,
    adverse_impact,
    members_of,
    reference_group,
)
from cde_domain.intervals import holm, log_ratio


@dataclass(frozen=True)
class Cell:
    """
    One cell of two attributes: approval as in `GroupResult`, corrected for all cells looked at.

    `p_holm` is Fisher's p after Holm, `p_below_holm` that of a ratio at or above the limit: below 0.025 the ratio's
    interval lies below the limit.
    """

    result: GroupResult
    verdict: Verdict
    p_holm: float | None = None
    p_below_holm: float | None = None

    @property
    def clearly_below(self) -> bool:
        """Whether the impact ratio lies below the limit by more than chance explains."""
        return self.p_below_holm is not None and self.p_below_holm < SIGNIFICANCE / 2


@dataclass(frozen=True)
class Intersection:
    """All cells of two protected attributes; rows with either unknown are counted and in no cell."""

    attributes: tuple[str, str]
    unknown_rows: int
    cells: tuple[Cell, ...]

    def as_json(self) -> dict[str, Any]:
        """The intersection as JSON, each cell with its numbers."""
        cells = [
            {
                **asdict(cell.result),
                "verdict": cell.verdict,
                "p_holm": cell.p_holm,
                "p_below_holm": cell.p_below_holm,
                "clearly_below": cell.clearly_below,
            }
            for cell in self.cells
        ]
        plain: dict[str, Any] = json.loads(
            json.dumps({"attributes": self.attributes, "unknown_rows": self.unknown_rows, "cells": cells})
        )
        return plain


def intersections(
    attributes: Mapping[str, pd.Series],
    approved: NDArray[np.bool_],
    reviewed: NDArray[np.bool_],
    *,
    min_ratio: float,
) -> tuple[Intersection, ...]:
    """
    Every pair of attributes as `adverse_impact` has them, p-values corrected over all cells; it gates nothing.

    A cell of any size fails only if its ratio is below `min_ratio` and its p after Holm below 0.05. A cell
    is named by its two groups, `female & 25 or younger`.
    """
    found = []
    for first, second in combinations(attributes, 2):
        left, right = attributes[first].reset_index(drop=True), attributes[second].reset_index(drop=True)
        unknown = left.isna() | right.isna()
        names = (left.astype(str) + " & " + right.astype(str)).mask(unknown)
        result = adverse_impact(
            names, approved, reviewed, attribute=f"{first} & {second}", use="report", why="", min_ratio=min_ratio
        )
        reference = _counts(names, approved)
        cells = [(group, _p_below(group, reference, min_ratio)) for group in result.groups]
        found.append(((first, second), int(unknown.sum()), cells))
    computed = [(group, p_below) for _, _, cells in found for group, p_below in cells if group.p_value is not None]
    fisher = holm([group.p_value or 0.0 for group, _ in computed])
    below = holm([p_below for _, p_below in computed])
    corrected = {
        (group.attribute, group.group): each
        for (group, _), each in zip(computed, zip(fisher, below, strict=True), strict=True)
    }
    return tuple(
        Intersection(pair, unknown, tuple(_cell(group, corrected, min_ratio) for group, _ in cells))
        for pair, unknown, cells in found
    )


def _counts(names: pd.Series, approved: NDArray[np.bool_]) -> tuple[int, int]:
    members = members_of(names)
    reference = reference_group(members, approved)
    if reference is None:
        return 0, 0
    return int(approved[members[reference]].sum()), int(members[reference].sum())


def _p_below(group: GroupResult, reference: tuple[int, int], min_ratio: float) -> float:
    """The one-sided p of the impact ratio being at least `min_ratio`."""
    if group.p_value is None or group.approval_rate is None:
        return 1.0
    estimate, error = log_ratio(round(group.approval_rate * group.rows), group.rows, *reference)
    return NormalDist().cdf((estimate - np.log(min_ratio)) / error)


def _cell(group: GroupResult, corrected: Mapping[tuple[str, str], tuple[float, float]], min_ratio: float) -> Cell:
    if (group.attribute, group.group) not in corrected:
        return Cell(group, group.verdict)
    p_holm, p_below_holm = corrected[group.attribute, group.group]
    verdict = Verdict.INSUFFICIENT_DATA if group.rows < MIN_VERDICT else group.verdict
    if group.impact_ratio is not None and group.impact_ratio < min_ratio:
        # Of many cells some lie below the limit by chance, large ones too.
        verdict = Verdict.FAIL if p_holm < SIGNIFICANCE else Verdict.INSUFFICIENT_DATA
    return Cell(group, verdict, p_holm, p_below_holm)
