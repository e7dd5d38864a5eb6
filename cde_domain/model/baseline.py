"""Who reasons are measured against: applicants who were approved, and only just."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BAND = 0.05  # "at or slightly above" the cut-off
MIN_ROWS = 200


def just_passed(scores: Array, approve_at: float) -> NDArray[np.intp]:
    """
    The positions of applicants who just passed: those scored within 0.05 above the cut-off.

    Where fewer than 200 are, the 200 nearest above it; where nobody passes, the best-scored applicants.
    """
    passing = np.flatnonzero(scores >= approve_at)
    near = passing[scores[passing] < approve_at + BAND]
    if len(near) < MIN_ROWS:
        candidates = passing if len(passing) else np.argsort(-scores, kind="stable")[:MIN_ROWS]
        near = candidates[np.argsort(scores[candidates], kind="stable")[:MIN_ROWS]]
    return near


def reason_baseline(scores: Array, contributions: Array, approve_at: float) -> Array:
    """The mean contributions, of shape (features,), of those who just passed."""
    return contributions[just_passed(scores, approve_at)].mean(axis=0)
