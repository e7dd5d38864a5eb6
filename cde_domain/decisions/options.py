"""What an applicant could change about an application, and the few values at which the model would notice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from cde_domain.application import ColumnSpec
from cde_domain.decisions.policy import Policy
from cde_domain.features.feature import Feature
from cde_domain.model.scoring_model import ScoringModel

Array = NDArray[np.float64]

MOST_POINTS = 4096


@dataclass(frozen=True)
class Option:
    """One field that the applicant can change: its value in the application first, then the others, nearest first."""

    spec: ColumnSpec
    values: Array


def options_of(application: BaseModel, specs: tuple[ColumnSpec, ...]) -> list[Option]:
    """The actionable fields of an application that have a value and somewhere to go."""
    found = []
    for spec in specs:
        if spec.actionable is None or (value := value_of(application, spec)) is None:
            continue
        values = _categories(value, spec) if spec.kind == "category" else _numbers(float(value), spec)
        if len(values) > 1:
            found.append(Option(spec, values))
    return found


def value_of(application: BaseModel, spec: ColumnSpec) -> Any:
    """The value of a field, None where it or the record it stands in is absent."""
    value: Any = application
    for name in spec.path:
        value = None if value is None else getattr(value, name)
    return value


def _categories(value: str, spec: ColumnSpec) -> Array:
    assert spec.actionable is not None
    to = spec.actionable.to
    after = to[to.index(value) + 1 :] if value in to else to
    return np.array([float(spec.categories.index(category)) for category in (value, *after)])


def _numbers(value: float, spec: ColumnSpec) -> Array:
    assert spec.actionable is not None
    reachable = [_multiples(value, direction, spec) for direction in (-1, 1)]
    others = np.concatenate(reachable)
    return np.concatenate([[value], others[np.argsort(np.abs(others - value), kind="stable")]])


def _multiples(value: float, direction: int, spec: ColumnSpec) -> Array:
    """The multiples of the step on one side of a value; of ten steps, or a hundred, where they would be too many."""
    actionable = spec.actionable
    assert actionable is not None
    if actionable.direction == ("higher" if direction < 0 else "lower"):
        return np.empty(0)
    bounds = (spec.at_least, spec.above) if direction < 0 else (spec.at_most, spec.below)
    known = [bound for bound in (*bounds, actionable.limit) if bound is not None]
    end = max(known) if direction < 0 else min(known)
    step = actionable.step
    while abs(end - value) / step > MOST_POINTS:
        step *= 10
    first = np.ceil(value / step) - 1 if direction < 0 else np.floor(value / step) + 1
    multiples = np.round(step * np.arange(first, first + direction * MOST_POINTS, direction), 9)
    open_end = end in (spec.above, spec.below)
    inside = (multiples - end) * direction < 0 if open_end else (multiples - end) * direction <= 0
    return multiples[inside]


def edges_of(features: tuple[Feature, ...], model: ScoringModel, policy: Policy) -> list[Array]:
    """For each feature the values from which on another answer is possible: of trees, rules and trained ranges."""
    edges = [model.trees.thresholds_of(position).tolist() for position in range(len(features))]
    positions = {feature.name: position for position, feature in enumerate(features)}
    for rule in policy.rules:
        of_rule = edges[positions[rule.when.feature]]
        of_rule += [] if rule.when.above is None else [_just_above(rule.when.above)]
        of_rule += [] if rule.when.below is None else [rule.when.below]
    for own, bounds in zip(edges, model.ranges, strict=True):
        own += [] if bounds is None else [bounds[0], _just_above(bounds[1])]
    return [np.unique(own) for own in edges]


def _just_above(limit: float) -> float:
    return float(np.nextafter(limit, np.inf))


def cells_of(matrix: Array, features: tuple[Feature, ...], edges: list[Array], columns: list[int]) -> NDArray[np.int64]:
    """
    The cell of each row of a (rows, features) matrix, of shape (rows, columns), by the given features alone.

    Rows in the same cell, and alike in the other features, get the same decision.
    """
    cells = np.empty((len(matrix), len(columns)), dtype=np.int64)
    for place, column in enumerate(columns):
        values = matrix[:, column]
        if features[column].categories:
            cells[:, place] = np.nan_to_num(values, nan=-1)
        else:
            cells[:, place] = np.where(np.isnan(values), -1, np.searchsorted(edges[column], values, side="right"))
    return cells


def quantiles(values: Array, reference: Mapping[str, Any], bounds: tuple[float, float] | None) -> Array:
    """The shares of the training applicants below some values of a feature, between its recorded quantiles linear."""
    if bounds is None:
        return np.zeros(len(values))
    edges, shares = np.array(reference["edges"]), np.array(reference["shares"])[:-1]
    below = np.concatenate([[0.0], np.cumsum(shares) / shares.sum()])
    return np.interp(values, np.concatenate([[bounds[0]], edges, [bounds[1]]]), below)
