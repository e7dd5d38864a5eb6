"""Recourse: the smallest change of an application, within what the applicant can do, that leads to an approval.

Trees answer alike between their split points, so of all values of a field only the first beyond each is tried. Fewer
changed fields come before smaller changes. Whatever is found has been decided by the engine itself, rules included.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from cde_domain.application import ColumnSpec, columns_of
from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.options import Option, cells_of, edges_of, options_of, quantiles
from cde_domain.decisions.policy import Outcome
from cde_domain.features.columns import Columns, columns_of_applications, repeated

Array = NDArray[np.float64]

MOST_CHANGES = 3
MOST_FIELDS = 6  # in combinations; alone every field is tried
RUNGS = {2: 12, 3: 6}  # values of each field in combinations of so many, before they are made smaller again
TRIED = 3
PASSES = 4


@dataclass(frozen=True)
class Change:
    """One field to change: its dotted name, its values before and after, and a sentence for the applicant."""

    field: str
    before: float | str
    after: float | str
    sentence: str


@dataclass(frozen=True)
class Recourse:
    """
    Changes that together lead to an approval.

    `cost` is how far they move the applicant through the population: the shares of training applicants passed, added up
    over the changes. `application` is the changed application, `score` the one the engine gives it.
    """

    changes: tuple[Change, ...]
    cost: float
    score: float
    application: BaseModel


def find_recourse(engine: DecisionEngine, application: BaseModel, applied_at: date) -> Recourse | None:
    """The smallest change that the engine approves, or None: nothing is known to help, or it is approved as it is."""
    return RecourseFinder(engine).find(application, applied_at)


class RecourseFinder:
    """
    Finds recourse with one engine.

    The search is bounded in rows and deterministic. It finds the smallest change of any one field. Of two or three it
    tries combinations of the values that help most, and makes each change as small as the others let it be, so that
    none of them can be undone or lessened.
    """

    def __init__(self, engine: DecisionEngine) -> None:
        self.engine = engine
        self.specs = columns_of(engine.portfolio.application)
        self._edges = edges_of(engine.portfolio.features, engine.model, engine.policy)

    def find(self, application: BaseModel, applied_at: date) -> Recourse | None:
        """The smallest change of an application as of its date that the engine approves, None if there is none."""
        options = options_of(application, self.specs)
        if not options or self.engine.decide(application, applied_at).decision is Outcome.APPROVED:
            return None
        search = _Search(
            self.engine, self._edges, columns_of_applications([application], self.specs, applied_at), options
        )
        for values in search.solutions():
            found = self._verified(application, applied_at, search, values)
            if found is not None:
                return found
        return None

    def _verified(
        self, application: BaseModel, applied_at: date, search: "_Search", values: Mapping[int, float]
    ) -> Recourse | None:
        specs = {place: search.options[place].spec for place in values}
        after = {place: _as_given(value, specs[place]) for place, value in values.items()}
        try:
            changed = _changed(application, {specs[place].path: value for place, value in after.items()})
        except ValidationError:  # the application has conditions that its fields do not state
            return None
        decision = self.engine.decide(changed, applied_at)
        if decision.decision is not Outcome.APPROVED or decision.score is None:
            return None
        changes = []
        for place, spec in specs.items():
            before = _as_given(float(search.options[place].values[0]), spec)
            changes.append(Change(spec.name, before, after[place], _sentence(spec, before, after[place])))
        cost = sum(search.cost(place, value) for place, value in values.items())
        return Recourse(tuple(changes), float(cost), decision.score, changed)


@dataclass(frozen=True)
class _Ladder:
    """The values of one field worth trying with the others as they are, nearest first, and what each leads to."""

    values: Array
    margins: Array
    approved: NDArray[np.bool_]


class _Search:
    """The search for one application, in matrices of feature rows."""

    def __init__(self, engine: DecisionEngine, edges: list[Array], columns: Columns, options: list[Option]) -> None:
        self.options = options
        self._engine = engine
        self._edges = edges
        self._columns = columns
        self._row = self._computed({}, list(range(len(edges))), 1)
        self._affected = [self._features_of(option) for option in options]
        self._ladders = [self._ladder(place, {}) for place in range(len(options))]

    def solutions(self) -> Iterable[Mapping[int, float]]:
        """Changed values by the place of their option, smallest first, one field before two and two before three."""
        alone: list[Mapping[int, float]] = []
        for place, ladder in enumerate(self._ladders):
            if ladder.approved.any():
                alone.append({place: float(ladder.values[np.argmax(ladder.approved)])})
        yield from sorted(alone, key=self._cost)
        gains = [float(np.nanmax(ladder.margins) - ladder.margins[0]) for ladder in self._ladders]
        strongest = sorted(sorted(range(len(gains)), key=lambda place: -gains[place])[:MOST_FIELDS])
        for many in range(2, MOST_CHANGES + 1):
            yield from self._combined(strongest, many)

    def cost(self, place: int, value: float) -> float:
        """How far a change of one option alone moves the applicant through the population, at most 1."""
        before, after = self._matrix({place: np.array([self.options[place].values[0], value])})
        model = self._engine.model
        moved = [0.0]
        for position in self._affected[place]:
            pair = np.array([before[position], after[position]])
            if self._engine.portfolio.features[position].categories or np.isnan(pair).any():
                moved.append(float(pair[0] != pair[1]))
            elif model.feature_references:
                share = quantiles(pair, model.feature_references[position], model.ranges[position])
                moved.append(float(abs(share[1] - share[0])))
        return max(moved)

    def _cost(self, values: Mapping[int, float]) -> tuple[int, float, tuple[int, ...]]:
        return len(values), sum(self.cost(place, value) for place, value in values.items()), tuple(values)

    def _features_of(self, option: Option) -> list[int]:
        """The features that a field enters, seen by trying values of it from end to end."""
        spread = option.values[np.unique(np.linspace(0, len(option.values) - 1, 16).astype(int))]
        everything = list(range(len(self._edges)))
        tried = self._computed({option.spec.name: spread}, everything, len(spread))
        same = (tried == self._row) | (np.isnan(tried) & np.isnan(self._row))
        return np.flatnonzero(~same.all(axis=0)).tolist()

    def _computed(self, changed: Mapping[str, Array], positions: list[int], rows: int) -> Array:
        columns = repeated(self._columns, changed) if changed else self._columns
        matrix = np.empty((rows, len(positions)))
        for place, position in enumerate(positions):
            matrix[:, place] = self._engine.portfolio.features[position].compute(columns)
        matrix[np.isinf(matrix)] = np.nan
        return matrix

    def _matrix(self, values: Mapping[int, Array]) -> Array:
        """The features of the application with options set to values, a row for each."""
        rows = len(next(iter(values.values())))
        positions = sorted({position for place in values for position in self._affected[place]})
        matrix = np.repeat(self._row, rows, axis=0)
        changed = {self.options[place].spec.name: own for place, own in values.items()}
        matrix[:, positions] = self._computed(changed, positions, rows)
        return matrix

    def _decided(self, matrix: Array) -> tuple[Array, NDArray[np.bool_]]:
        engine = self._engine
        margins = engine.model.trees.margins(matrix)
        scores = engine.model.calibrator.scores(margins)
        decisions = decide_all(engine.portfolio.features, matrix, scores, engine.policy, engine.model)
        return margins, decisions == Outcome.APPROVED.value

    def _ladder(self, place: int, others: Mapping[int, float]) -> _Ladder:
        """The values of one option at which something changes, the others held."""
        values = self.options[place].values
        held = {other: np.full(len(values), value) for other, value in others.items()}
        matrix = self._matrix({**held, place: values})
        cells = cells_of(matrix, self._engine.portfolio.features, self._edges, self._affected[place])
        _, first = np.unique(cells, axis=0, return_index=True)
        first.sort()
        margins, approved = self._decided(matrix[first])
        return _Ladder(values[first], margins, approved)

    def _combined(self, places: list[int], many: int) -> Iterable[Mapping[int, float]]:
        rungs = {place: _rungs(self._ladders[place], RUNGS[many]) for place in places}
        grids = []
        for chosen in combinations(places, many):
            grid = np.array(list(product(*(rungs[place] for place in chosen))))
            if not len(grid):
                continue
            _, approved = self._decided(self._matrix({place: grid[:, i] for i, place in enumerate(chosen)}))
            grids += [dict(zip(chosen, row, strict=True)) for row in self._cheapest(chosen, grid[approved])]
        found = [self._lessened(values) for values in sorted(grids, key=self._cost)[:TRIED]]
        yield from sorted(found, key=self._cost)

    def _cheapest(self, chosen: tuple[int, ...], grid: Array) -> list[list[float]]:
        if not len(grid):
            return []
        costs = np.zeros(len(grid))
        for column, place in enumerate(chosen):
            values, inverse = np.unique(grid[:, column], return_inverse=True)
            costs += np.array([self.cost(place, float(value)) for value in values])[inverse]
        return grid[np.argsort(costs, kind="stable")[:1]].tolist()

    def _lessened(self, values: dict[int, float]) -> dict[int, float]:
        """Every change as small as the others let it be: the first approved value of each, until none moves."""
        for _ in range(PASSES):
            before = dict(values)
            for place in sorted(values, key=lambda place: -self.cost(place, before[place])):
                ladder = self._ladder(place, {other: value for other, value in values.items() if other != place})
                first = int(np.argmax(ladder.approved))
                values[place] = float(ladder.values[first])
            values = {place: value for place, value in values.items() if value != self.options[place].values[0]}
            if values == before:
                break
        return values


def _rungs(ladder: _Ladder, most: int) -> list[float]:
    """The values that help more than every nearer one, or else the farthest, which may help beside another change."""
    margins = np.nan_to_num(ladder.margins, nan=-np.inf)
    best = np.maximum.accumulate(margins)
    better = np.flatnonzero(margins[1:] > best[:-1]) + 1
    if not len(better):
        better = np.unique(np.linspace(0, len(margins) - 1, most).astype(int))[1:]
    chosen = better[np.unique(np.linspace(0, len(better) - 1, most).astype(int))] if len(better) else better
    return ladder.values[chosen].tolist()


def _as_given(value: float, spec: ColumnSpec) -> float | str:
    if spec.kind == "category":
        return spec.categories[int(value)]
    return int(value) if spec.integer else value


def _changed(application: BaseModel, changes: Mapping[tuple[str, ...], Any]) -> BaseModel:
    body = application.model_dump()
    for path, value in changes.items():
        record = body
        for name in path[:-1]:
            record = record[name]
        record[path[-1]] = value
    return type(application).model_validate(body)


def _sentence(spec: ColumnSpec, before: float | str, after: float | str) -> str:
    assert spec.actionable is not None
    if isinstance(before, str):
        return f'{spec.actionable.advice}: "{after}" instead of "{before}"'
    assert not isinstance(after, str)
    unit = "" if spec.unit in (None, "currency") else f" {spec.unit}"  # the lender's own currency needs no name
    return f"{spec.actionable.advice} from {_number(before)} to {_number(after)}{unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"
