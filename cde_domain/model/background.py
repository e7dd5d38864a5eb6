"""What a model's training applicants looked like, feature by feature: quartiles and frequencies, nobody's row."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NO_SPREAD = 1e-11  # what LIME adds to a standard deviation, so that it can divide by it


@dataclass(frozen=True)
class Background:
    """
    Statistics of each feature alone: what LIME draws its samples from, and all that it needs.

    `fill` is the median, or the commonest category: what stands for an unknown value. A number is cut at its quartiles
    (`borders`) into bins, each with the `means`, `deviations`, `lowest` and `highest` of its values; a category has no
    borders. `values` are the categories or the numbers of the bins, `counts` how many rows have each.
    """

    fill: tuple[float, ...]
    borders: tuple[tuple[float, ...], ...]
    means: tuple[tuple[float, ...], ...]
    deviations: tuple[tuple[float, ...], ...]
    lowest: tuple[tuple[float, ...], ...]
    highest: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]
    counts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, matrix: Array, categorical: tuple[bool, ...]) -> Self:
        """The statistics of a (rows, features) matrix; unknown values are filled first."""
        columns = [_column(values, is_category) for values, is_category in zip(matrix.T, categorical, strict=True)]
        return cls(**{name: tuple(column[name] for column in columns) for name in cls.__dataclass_fields__})

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """What `as_json` gave."""
        return cls(
            fill=tuple(content["fill"]),
            **{name: tuple(map(tuple, content[name])) for name in cls.__dataclass_fields__ if name != "fill"},
        )

    def as_json(self) -> dict[str, Any]:
        """Lists of plain numbers by name."""
        return asdict(self)

    def filled(self, matrix: Array) -> Array:
        """A (rows, features) matrix with its unknown values filled."""
        return np.where(np.isnan(matrix), np.array(self.fill), matrix)


def _column(values: Array, is_category: bool) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    if is_category:
        fill = float(np.bincount(known.astype(np.int64)).argmax()) if len(known) else 0.0
    else:
        fill = float(np.median(known)) if len(known) else 0.0
    filled = np.where(np.isnan(values), fill, values)
    borders = np.empty(0) if is_category else np.unique(np.percentile(filled, [25, 50, 75]))
    bins = np.searchsorted(borders, filled)
    inside = [] if is_category else [filled[bins == number] for number in range(len(borders) + 1)]
    present, counts = np.unique(filled if is_category else bins, return_counts=True)
    ends = [] if is_category else [float(filled.min()), *borders.tolist(), float(filled.max())]
    return {
        "fill": fill,
        "borders": tuple(borders.tolist()),
        "means": tuple(float(part.mean()) if len(part) else 0.0 for part in inside),
        "deviations": tuple((float(part.std()) if len(part) else 0.0) + NO_SPREAD for part in inside),
        "lowest": tuple(ends[:-1]),
        "highest": tuple(ends[1:]),
        "values": tuple(map(float, present)),
        "counts": tuple(map(int, counts)),
    }
