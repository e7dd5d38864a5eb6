"""What a cut-off means for the book: who is approved, how many of them fail, and what is earned."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.policy import Outcome
from cde_domain.model.evaluation import bad_rate
from cde_domain.portfolio import Economics

Array = NDArray[np.float64]

BANDS = 10
CURVE_POINTS = 101


def classification(repaid: Array, scores: Array, cut_off: float) -> dict[str, Any]:
    """Accuracy, precision, recall and F1 if every score from the cut-off on is taken for a good loan."""
    taken, good = scores >= cut_off, repaid == 1
    hits = int((taken & good).sum())
    precision = hits / int(taken.sum()) if taken.any() else None
    recall = hits / int(good.sum()) if good.any() else None
    return {
        "cut_off": cut_off,
        "accuracy": float((taken == good).mean()),
        "precision": precision,
        "recall": recall,
        "f1": 2 * hits / (int(taken.sum()) + int(good.sum())) if taken.any() or good.any() else None,
    }


def score_bands(repaid: Array, scores: Array, decisions: NDArray[np.str_]) -> list[dict[str, Any]]:
    """Ten bands of equally many applications, best first: their scores, decisions and bad rates, alone and so far."""
    order = np.argsort(-scores, kind="stable")
    parts = [part for part in np.array_split(order, BANDS) if len(part)]
    bands = []
    for number, part in enumerate(parts):
        so_far = np.concatenate(parts[: number + 1])
        bands.append(
            {
                "band": number + 1,
                "lowest_score": float(scores[part].min()),
                "highest_score": float(scores[part].max()),
                "rows": len(part),
                "approved": float((decisions[part] == Outcome.APPROVED).mean()),
                "reviewed": float((decisions[part] == Outcome.MANUAL_REVIEW).mean()),
                "bad_rate": bad_rate(repaid[part]),
                "expected_bad_rate": float(1 - scores[part].mean()),
                "bad_rate_so_far": bad_rate(repaid[so_far]),
            }
        )
    return bands


def profit(repaid: Array, approved: NDArray[np.bool_], economics: Economics) -> float:
    """What every 100 applied for earn if these are approved and all amounts alike: margins less losses."""
    earned = np.where(repaid == 1, economics.margin, -economics.loss_given_default)
    return float(100 * (earned * approved).mean())


def expected_profit(scores: Array, approved: NDArray[np.bool_], economics: Economics) -> float:
    """The same, with the scores in place of the outcomes."""
    earned = scores * economics.margin - (1 - scores) * economics.loss_given_default
    return float(100 * (earned * approved).mean())


def cut_off_table(repaid: Array, scores: Array, economics: Economics, named: dict[str, float]) -> list[dict[str, Any]]:
    """
    Approval rate, bad rate and profit at cut-offs that approve from 95 % to 5 % of the applications.

    Those in `named`, such as the policy's own, stand among them under their names.
    """
    shares = np.arange(0.95, 0.0, -0.1)
    cut_offs = {float(cut): "" for cut in np.round(np.quantile(scores, 1 - shares), 6)}
    cut_offs |= {cut: name for name, cut in named.items()}
    return [
        {"cut_off": cut, "name": name, **_at(repaid, scores, cut, economics)} for cut, name in sorted(cut_offs.items())
    ]


def _at(repaid: Array, scores: Array, cut_off: float, economics: Economics) -> dict[str, Any]:
    approved = scores >= cut_off
    bad = repaid == 0
    return {
        "approval_rate": float(approved.mean()),
        "bad_rate": bad_rate(repaid[approved]),
        "bad_refused": float((bad & ~approved).sum() / bad.sum()) if bad.any() else None,
        "good_refused": float((~bad & ~approved).sum() / (~bad).sum()) if (~bad).any() else None,
        "profit": profit(repaid, approved, economics),
        "expected_profit": expected_profit(scores, approved, economics),
    }


def profit_curve(repaid: Array, scores: Array, economics: Economics) -> dict[str, Sequence[float]]:
    """Profit, by outcomes and as the scores expect it, at cut-offs over the range of the scores."""
    cut_offs = np.linspace(scores.min(), scores.max(), CURVE_POINTS)
    return {
        "cut_offs": cut_offs.tolist(),
        "profit": [profit(repaid, scores >= cut, economics) for cut in cut_offs],
        "expected_profit": [expected_profit(scores, scores >= cut, economics) for cut in cut_offs],
    }
