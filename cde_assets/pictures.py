"""The pictures in the UI and on the card."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cde_domain.intervals import wilson
from cde_domain.model.metrics import auc, calibration_bins

Array = NDArray[np.float64]

GOOD, BAD, NEUTRAL, SHADE = "#2a7f9e", "#c8553d", "#4a4a4a", "#d9d9d9"


def new_figure(width: float = 5.0, height: float = 3.6) -> tuple[Figure, Any]:
    """An empty picture of so many inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def roc_curve(repaid: Array, scores: Array) -> Figure:
    """Share of good loans against share of bad loans accepted, over all cut-offs."""
    good, bad = _accepted(repaid, scores)
    figure, axes = new_figure(4.2, 3.8)
    axes.plot([0, 1], [0, 1], color=SHADE)
    axes.plot(bad, good, color=GOOD)
    axes.set(xlabel="bad loans accepted", ylabel="good loans accepted", title=f"ROC, AUC {auc(repaid, scores):.3f}")
    return figure


def _accepted(repaid: Array, scores: Array) -> tuple[Array, Array]:
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    good = np.concatenate([[0], np.cumsum(repaid[order])[ends] / repaid.sum()])
    bad = np.concatenate([[0], np.cumsum(1 - repaid[order])[ends] / (1 - repaid).sum()])
    return good, bad


def roc_curves(repaid: Array, scores: Mapping[str, Array]) -> Figure:
    """The curves of several scores of the same loans."""
    figure, axes = new_figure(5.4, 4.6)
    axes.plot([0, 1], [0, 1], color=SHADE)
    for title, of_one in scores.items():
        good, bad = _accepted(repaid, of_one)
        axes.plot(bad, good, linewidth=1.2, label=f"{title}, {auc(repaid, of_one):.3f}")
    axes.set(xlabel="bad loans accepted", ylabel="good loans accepted", title="ROC out of fold, all folds together")
    axes.legend(frameon=False, fontsize=8)
    return figure


def calibration_curve(repaid: Array, scores: Array) -> Figure:
    """Observed repayment by score, in ten bins of equally many applications."""
    bins = calibration_bins(repaid, scores)
    figure, axes = new_figure(4.2, 3.8)
    axes.plot([0, 1], [0, 1], color=SHADE)
    axes.plot(bins[:, 0], bins[:, 1], marker="o", color=GOOD)
    axes.set(xlabel="score", ylabel="observed repayment rate", title="Calibration", xlim=(0, 1), ylim=(0, 1.02))
    return figure


def calibration_of(bins: Sequence[Mapping[str, Any]]) -> Figure:
    """Observed repayment with its 95 % interval by mean score of each bin."""
    figure, axes = new_figure(4.6, 4.0)
    axes.plot([0, 1], [0, 1], color=SHADE, zorder=0)
    scores, repaid = [row["mean_score"] for row in bins], [row["repaid"] for row in bins]
    beyond = [[abs(row["interval"][side] - row["repaid"]) for row in bins] for side in (0, 1)]
    axes.errorbar(scores, repaid, yerr=beyond, marker="o", markersize=4, color=GOOD, ecolor=NEUTRAL, elinewidth=0.8)
    low = max(0.0, min(*scores, *(row["interval"][0] for row in bins)) - 0.05)
    axes.set(xlabel="mean score", ylabel="repaid", title="Calibration", xlim=(low, 1), ylim=(low, 1.02))
    return figure


def batch_histogram(scores: Array, approve_at: float, review_at: float) -> Figure:
    """The scores of a day's applications with the two cut-offs."""
    figure, axes = new_figure()
    axes.hist(scores, bins=30, range=(0, 1), color=GOOD)
    for cut_off in (approve_at, review_at):
        axes.axvline(cut_off, color=NEUTRAL, linestyle="--", linewidth=1)
    axes.set(xlabel="score", ylabel="applications", title="Scores of the day", xlim=(0, 1))
    return figure


def score_histogram(scores: Array, repaid: Array, approve_at: float, review_at: float) -> Figure:
    """The scores of good and bad loans with the two cut-offs."""
    figure, axes = new_figure()
    axes.hist(
        [scores[repaid == 1], scores[repaid == 0]], bins=30, stacked=True, color=[GOOD, BAD], label=["repaid", "not"]
    )
    for cut_off in (review_at, approve_at):
        axes.axvline(cut_off, color=NEUTRAL, linestyle="--")
    axes.set(xlabel="score", ylabel="applications", title="Scores and cut-offs")
    axes.legend(frameon=False)
    return figure


def profit_curve(curve: Mapping[str, Sequence[float]], approve_at: float, break_even: float) -> Figure:
    """What every 100 applied for earn, by the cut-off from which loans are approved."""
    figure, axes = new_figure()
    axes.plot(curve["cut_offs"], curve["profit"], color=GOOD, label="by outcomes")
    axes.plot(curve["cut_offs"], curve["expected_profit"], color=NEUTRAL, linestyle=":", label="as the scores expect")
    axes.axhline(0, color=SHADE)
    axes.axvline(approve_at, color=NEUTRAL, linestyle="--", label=f"policy, {approve_at:.2f}")
    axes.axvline(break_even, color=BAD, linewidth=0.8, label=f"break-even, {break_even:.2f}")
    axes.set(xlabel="approved from this score on", ylabel="profit per 100 applied for", title="Profit by cut-off")
    axes.legend(frameon=False, fontsize=8)
    return figure


def score_bands(bands: Sequence[dict[str, Any]]) -> Figure:
    """The share of bad loans in every score band, best band first, beside what the scores expect."""
    figure, axes = new_figure()
    places = np.arange(len(bands))
    axes.bar(places, [band["bad_rate"] for band in bands], color=BAD, alpha=0.8, label="not repaid")
    expected = [band["expected_bad_rate"] for band in bands]
    axes.plot(places, expected, color=NEUTRAL, marker="o", markersize=4, label="expected")
    axes.set_xticks(places, [f"{band['lowest_score']:.2f}" for band in bands], fontsize=8)
    axes.set(xlabel="lowest score of the band", ylabel="share of bad loans", title="Score bands")
    axes.legend(frameon=False, fontsize=8)
    return figure


def contribution_summary(names: Sequence[str], contributions: Array, matrix: Array, most: int = 12) -> Figure:
    """SHAP summary: each dot an application, placed by the contribution and coloured by the feature's value."""
    order = np.argsort(np.abs(contributions).mean(axis=0))[-most:]
    random = np.random.default_rng(0)
    rows = random.permutation(len(contributions))[:800]
    figure, axes = new_figure(6.2, 0.34 * len(order) + 1.0)
    for place, feature in enumerate(order):
        values = matrix[rows, feature]
        ranks = np.where(np.isnan(values), np.nan, np.argsort(np.argsort(values)) / len(rows))
        axes.scatter(
            contributions[rows, feature],
            place + random.uniform(-0.3, 0.3, len(rows)),
            c=np.nan_to_num(ranks, nan=0.5),
            cmap="coolwarm",
            s=4,
            linewidths=0,
        )
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.set_yticks(range(len(order)), [names[feature] for feature in order])
    axes.set(
        xlabel="contribution to the log-odds of repayment (blue: low value, red: high value)",
        title="What drives the score",
    )
    return figure


def overlap_of_reasons(rows: Sequence[tuple[str, float, float]]) -> Figure:
    """How far reasons stay the same: (what was varied, mean Jaccard index, the least that is asked), top to bottom."""
    figure, axes = new_figure(6.0, 0.4 * len(rows) + 1.1)
    for place, (_, overlap, least) in enumerate(reversed(rows)):
        axes.barh(place, overlap, color=GOOD if overlap >= least else BAD, alpha=0.75, height=0.6)
        axes.plot([least, least], [place - 0.4, place + 0.4], color=NEUTRAL, linestyle="--")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.set(xlabel="overlap of the reasons (Jaccard; dashes: least asked)", xlim=(0, 1.02), title="Do reasons stay?")
    return figure


def impact_ratios(groups: Sequence[dict[str, Any]], min_ratio: float) -> Figure:
    """Approval of each group relative to its reference group, with 95 % intervals and the four-fifths line."""
    shown = [group for group in groups if group["impact_ratio"] is not None]
    figure, axes = new_figure(6.0, 0.4 * max(len(shown), 1) + 1.1)
    for place, group in enumerate(reversed(shown)):
        low, high = group["interval"]
        colour = {"fail": BAD, "pass": GOOD}.get(group["verdict"], NEUTRAL)
        axes.barh(place, group["impact_ratio"], color=colour, alpha=0.75, height=0.6)
        axes.plot([low, high], [place, place], color="black", linewidth=1)
    axes.set_yticks(range(len(shown)), [f"{g['attribute']}: {g['group']} (n={g['rows']})" for g in reversed(shown)])
    axes.axvline(min_ratio, color=BAD, linestyle="--")
    axes.axvline(1.0, color=SHADE)
    axes.set(
        xlabel="approval rate relative to the reference group (grey: too few to judge)", title="Adverse impact ratio"
    )
    return figure


def alternatives(report: Mapping[str, Any]) -> Figure:
    """AUC against the lowest impact ratio of every candidate at equal approval, the tolerance shaded."""
    figure, axes = new_figure(6.4, 4.4)
    challenger, candidates = report["challenger"], report["candidates"]
    shown = [row for row in candidates if row["impact_ratio"] is not None]
    lowest = challenger["auc_mean"] - report["auc_tolerance"]
    highest = max(row["auc_mean"] for row in (challenger, *candidates))
    axes.axvspan(lowest, max(highest, lowest) + 0.002, color=SHADE, alpha=0.5, label="within the tolerance")
    for family, marker in (("settings", "o"), ("features", "s"), ("reduction", "^")):
        of_family = [row for row in shown if row["family"] == family]
        axes.scatter(
            [row["auc_mean"] for row in of_family],
            [row["impact_ratio"] for row in of_family],
            marker=marker,
            s=30,
            color=[GOOD if row["helps"] else NEUTRAL for row in of_family],
            label=family if of_family else None,
        )
    if challenger["impact_ratio"] is not None:
        front = sorted((row["auc_mean"], row["impact_ratio"]) for row in (*shown, challenger) if row["pareto"])
        axes.plot(*zip(*front, strict=True), color=GOOD, linewidth=1, label="Pareto front")
        axes.scatter(
            challenger["auc_mean"], challenger["impact_ratio"], marker="*", s=160, color=BAD, label="challenger"
        )
    axes.axhline(1.0, color=SHADE)
    axes.set(
        xlabel="AUC, mean of the folds",
        ylabel="lowest impact ratio, equally many approved",
        title="Less discriminatory alternatives (blue: found)",
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


def decisions_by_day(counts: Sequence[tuple[date, int, int]]) -> Figure:
    """Decisions of each day as bars, and the share that was approved with its 95 % interval (Wilson)."""
    figure, axes = new_figure(7.0, 3.2)
    days = [day for day, _, _ in counts]
    axes.bar(days, [decided for _, decided, _ in counts], color=SHADE)
    axes.set(ylabel="decisions", title="Decisions and approval rate by the day")
    rates = axes.twinx()
    rates.spines[["top"]].set_visible(False)
    some = [(day, approved / decided, wilson(approved, decided)) for day, decided, approved in counts if decided]
    if some:
        at, share, intervals = zip(*some, strict=True)
        rates.fill_between(at, [low for low, _ in intervals], [high for _, high in intervals], color=GOOD, alpha=0.2)
        rates.plot(at, share, color=GOOD, marker="o", markersize=3)
    rates.set(ylabel="approved", ylim=(0, 1))
    figure.autofmt_xdate(rotation=30)
    return figure
