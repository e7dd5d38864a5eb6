"""Applications as columns of float64: what feature functions compute on.

Numbers are themselves, dates are days since 1970-01-01, flags are 0 and 1, categories are their position in the
declared list, and NaN is unknown. A list inside an application (accounts, inquiries) is a `Nested`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel

from cde_domain.application import ColumnSpec

Array = NDArray[np.float64]

_EPOCH = date(1970, 1, 1).toordinal()


# Loops of numba's, since one application is decided at a time, and NumPy takes microseconds a call for that. They add
# one item after the other: NumPy's pairwise summation would give other last bits for one row than for many.


@njit(cache=True)
def _segment_sums(values: NDArray[Any], offsets: NDArray[Any], known: NDArray[Any]) -> NDArray[Any]:
    sums = np.full(len(known), np.nan)
    for row in range(len(known)):
        if known[row]:
            total = 0.0
            for item in range(offsets[row], offsets[row + 1]):
                total += values[item]
            sums[row] = total
    return sums


@njit(cache=True)
def _segment_sizes(offsets: NDArray[Any], known: NDArray[Any]) -> NDArray[Any]:
    sizes = np.full(len(known), np.nan)
    for row in range(len(known)):
        if known[row]:
            sizes[row] = offsets[row + 1] - offsets[row]
    return sizes


@njit(cache=True)
def _spread(per_row: NDArray[Any], offsets: NDArray[Any]) -> NDArray[Any]:
    values = np.empty(offsets[-1])
    for row in range(len(per_row)):
        values[offsets[row] : offsets[row + 1]] = per_row[row]
    return values


@njit(cache=True)
def _is_flagged(codes: NDArray[Any], flags: NDArray[Any]) -> NDArray[Any]:
    flagged = np.zeros(len(codes), np.bool_)
    for item in range(len(codes)):
        if codes[item] == codes[item]:
            flagged[item] = flags[int(codes[item])]
    return flagged


@cache
def _flags(categories: tuple[str, ...], chosen: tuple[str, ...]) -> NDArray[np.bool_]:
    positions = [categories.index(category) for category in chosen]  # a misspelt one is an error, not never true
    return np.isin(np.arange(len(categories)), positions)


@njit(cache=True)
def _quotients(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[Any]:
    quotients = np.full(len(denominator), np.nan)
    for row in range(len(denominator)):
        if denominator[row] > 0:
            quotients[row] = numerator[row] / denominator[row]
    return quotients


@njit(cache=True)
def _segment_extremes(values: NDArray[Any], offsets: NDArray[Any], known: NDArray[Any], sign: float) -> NDArray[Any]:
    extremes = np.full(len(known), np.nan)
    for row in range(len(known)):
        if known[row]:
            for item in range(offsets[row], offsets[row + 1]):
                value = values[item]
                if value == value and not (sign * extremes[row] >= sign * value):
                    extremes[row] = value
    return extremes


@dataclass(frozen=True)
class Nested:
    """
    Lists of records, one list a row, as values and offsets.

    `fields` holds float64 arrays over all items; row i owns items `offsets[i]:offsets[i + 1]`. A row whose list is
    absent is not `known`: every reduction gives NaN for it, while an empty list counts as none.
    """

    fields: Mapping[str, Array]
    categories: Mapping[str, tuple[str, ...]]
    offsets: NDArray[np.int64]
    known: NDArray[np.bool_]

    def __getitem__(self, name: str) -> Array:
        """The values of one field over all items."""
        return self.fields[name]

    def is_any(self, name: str, *categories: str) -> NDArray[np.bool_]:
        """Per item: is the field one of these categories?"""
        return _is_flagged(self.fields[name], _flags(self.categories[name], categories))

    def spread(self, per_row: Array) -> Array:
        """A value per row repeated for each of its items."""
        return _spread(per_row, self.offsets)

    def count(self, where: NDArray[np.bool_] | None = None) -> Array:
        """How many items a row has (of those `where`)."""
        return _segment_sizes(self.offsets, self.known) if where is None else self.sum(where)

    def sum(self, values: Array | NDArray[np.bool_]) -> Array:
        """The sum of `values` (per item) in each row, added in order."""
        return _segment_sums(values, self.offsets, self.known)

    def mean(self, values: Array) -> Array:
        """The mean of `values` in each row; NaN for an empty list."""
        return ratio(self.sum(values), self.count())

    def deviation(self, values: Array) -> Array:
        """The population standard deviation of `values` in each row; NaN for an empty list."""
        distance = values - self.spread(self.mean(values))
        return np.sqrt(self.mean(distance * distance))

    def minimum(self, values: Array) -> Array:
        """The smallest value in each row; NaN for an empty list."""
        return _segment_extremes(values, self.offsets, self.known, -1.0)

    def maximum(self, values: Array) -> Array:
        """The largest value in each row; NaN for an empty list."""
        return _segment_extremes(values, self.offsets, self.known, 1.0)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Elementwise quotient; NaN (unknown) where the denominator is zero, negative or unknown."""
    return _quotients(numerator, denominator)


@dataclass(frozen=True)
class Columns:
    """The columns of `rows` applications, by the names of their paths; `applied_at` is always among them."""

    rows: int
    values: Mapping[str, Array | Nested]

    def __getitem__(self, name: str) -> Any:
        """A float64 array with a value per row, or a `Nested` for a list."""
        return self.values[name]


def columns_of_applications(
    applications: Sequence[BaseModel], specs: tuple[ColumnSpec, ...], applied_at: date
) -> Columns:
    """Validated applications of one date as columns of as many rows."""
    rows = len(applications)
    values: dict[str, Array | Nested] = {"applied_at": np.full(rows, _days(applied_at))}
    for spec in specs:
        if spec.kind == "text":
            continue
        given: Sequence[Any] = applications
        for name in spec.path:
            given = [None if value is None else getattr(value, name) for value in given]
        values[spec.name] = (
            _nested(given, spec) if spec.kind == "list" else np.array([_number(value, spec) for value in given])
        )
    return Columns(rows, values)


def repeated(columns: Columns, changed: Mapping[str, Array]) -> Columns:
    """The columns of one application in as many rows as each array of `changed` has, those columns replaced by it."""
    rows = len(next(iter(changed.values())))
    return Columns(rows, _Repeated(columns, rows, changed))


@dataclass(frozen=True)
class _Repeated(Mapping[str, Array | Nested]):
    """Columns that are repeated when a feature asks for them: few features see the long lists."""

    columns: Columns
    rows: int
    changed: Mapping[str, Array]

    def __getitem__(self, name: str) -> Array | Nested:
        if name in self.changed:
            return self.changed[name]
        value = self.columns.values[name]
        if not isinstance(value, Nested):
            return np.repeat(value, self.rows)
        return Nested(
            fields={item: np.tile(values, self.rows) for item, values in value.fields.items()},
            categories=value.categories,
            offsets=np.arange(self.rows + 1) * value.offsets[-1],
            known=np.repeat(value.known, self.rows),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns.values)

    def __len__(self) -> int:
        return len(self.columns.values)


def _nested(lists: Sequence[list[BaseModel] | None], spec: ColumnSpec) -> Nested:
    present = [record for items in lists for record in items or ()]
    return Nested(
        fields={
            item.name: np.array([_number(getattr(record, item.name), item) for record in present], dtype=np.float64)
            for item in spec.items
            if item.kind != "text"
        },
        categories={item.name: item.categories for item in spec.items},
        offsets=np.array([0, *accumulate(len(items or ()) for items in lists)]),
        known=np.array([items is not None for items in lists]),
    )


def _number(value: Any, spec: ColumnSpec) -> float:
    if value is None:
        return np.nan
    if spec.kind == "category":
        return float(spec.categories.index(value))
    if spec.kind == "date":
        return _days(value)
    return float(value)


def _days(day: date) -> float:
    return float(day.toordinal() - _EPOCH)
