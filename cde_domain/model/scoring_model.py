"""The scoring model: what is gated, served and replayed, as a folder of arrays and one JSON file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cde_domain.digests import folder_digests, json_digest, write_json
from cde_domain.model.background import Background
from cde_domain.model.compiled import CompiledTrees

Array = NDArray[np.float64]


@njit(cache=True)
def _calibrate(margins: Array, slope: float, intercept: float) -> Array:
    # One compiled loop for one row and for many: NumPy's and libm's exp differ in the last bit of 5 % of doubles.
    scores = np.empty(len(margins))
    for row in range(len(margins)):
        probability = 1.0 / (1.0 + np.exp(-(slope * margins[row] + intercept)))
        scores[row] = np.floor(probability * 1e6 + 0.5) / 1e6
    return scores


@dataclass(frozen=True)
class SigmoidCalibrator:
    """Platt scaling on the margin: P(repaid) = 1 / (1 + exp(-(slope * margin + intercept))), strictly increasing."""

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not self.slope > 0:
            raise ValueError(f"a calibrator must increase with the margin; its slope is {self.slope}")

    def scores(self, margins: Array) -> Array:
        """Calibrated probabilities of repayment, rounded to six decimals."""
        return _calibrate(np.ascontiguousarray(margins), self.slope, self.intercept)


@dataclass(frozen=True)
class ScoringModel:
    """
    Compiled trees with their calibrator and context.

    `ranges` are the smallest and largest known value of each feature in training (None where none was known), and
    `unknown_seen` says whether training saw it unknown too.
    `reason_baseline` is the mean contribution of each feature among training applicants scored at or slightly above
    the approval cut-off: reasons are measured against it (12 CFR 1002.9(b)(2), comment 5).
    `feature_references` are the fields of a `PsiReference` for each feature: what the training set looked like.
    `importance` is the mean size of each feature's contributions (margin space) over the training set, and `background`
    what LIME draws from; a model of an earlier version has neither.
    """

    trees: CompiledTrees
    calibrator: SigmoidCalibrator
    feature_names: tuple[str, ...]
    ranges: tuple[tuple[float, float] | None, ...]
    unknown_seen: tuple[bool, ...]
    reason_baseline: tuple[float, ...]
    feature_references: tuple[dict[str, Any], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    importance: tuple[float, ...] = ()
    background: Background | None = None

    @property
    def base(self) -> float:
        """The margin from which contributions are counted: the trees' mean, weighted by cover."""
        return float(self.trees.base[0])

    def scores(self, matrix: Array) -> Array:
        """Calibrated probabilities of repayment for a (rows, features) matrix."""
        return self.calibrator.scores(self.trees.margins(matrix))

    def outside_range(self, row: Array) -> list[str]:
        """The features of one row whose value, or absence, training did not see."""
        return [
            name
            for name, value, bounds, unknown_seen in zip(
                self.feature_names, row, self.ranges, self.unknown_seen, strict=True
            )
            if (not unknown_seen if value != value else bounds is None or not bounds[0] <= value <= bounds[1])
        ]

    def save(self, folder: Path) -> str:
        """Write the model into a folder and return its digest."""
        self.trees.save(folder / "trees")
        write_json(
            folder / "model.json",
            {
                "calibrator": asdict(self.calibrator),
                "feature_names": list(self.feature_names),
                "ranges": [list(bounds) if bounds else None for bounds in self.ranges],
                "unknown_seen": list(self.unknown_seen),
                "reason_baseline": list(self.reason_baseline),
                "feature_references": list(self.feature_references),
                "provenance": self.provenance,
                "importance": list(self.importance),
                "background": self.background.as_json() if self.background else None,
            },
        )
        return model_digest(folder)

    @classmethod
    def load(cls, folder: Path) -> "ScoringModel":
        """Read what `save` wrote; whoever loads has verified the folder's digest before."""
        context = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        return cls(
            trees=CompiledTrees.load(folder / "trees"),
            calibrator=SigmoidCalibrator(**context["calibrator"]),
            feature_names=tuple(context["feature_names"]),
            ranges=tuple(tuple(bounds) if bounds else None for bounds in context["ranges"]),
            unknown_seen=tuple(context["unknown_seen"]),
            reason_baseline=tuple(context["reason_baseline"]),
            feature_references=tuple(context["feature_references"]),
            provenance=context["provenance"],
            importance=tuple(context.get("importance", ())),
            background=Background.from_json(context["background"]) if context.get("background") else None,
        )


def model_digest(folder: Path) -> str:
    """The digest of a model folder: SHA-256 over its files' names and digests."""
    return json_digest(folder_digests(folder))
