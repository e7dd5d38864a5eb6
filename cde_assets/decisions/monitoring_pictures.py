"""The pictures of the reports about decisions."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cde_assets.pictures import BAD, GOOD, NEUTRAL, SHADE, new_figure
from cde_domain.intervals import wilson


def shifts(rows: Sequence[Mapping[str, Any]], most: int = 25) -> Figure:
    """The stability index of each thing that is watched with its limit, furthest from training first."""
    shown = sorted(rows, key=lambda row: -row["psi"] / row["limit"])[:most][::-1]
    figure, axes = new_figure(6.4, 0.28 * len(shown) + 1.1)
    places = np.arange(len(shown))
    axes.barh(places, [row["psi"] for row in shown], color=[BAD if row["drifted"] else GOOD for row in shown])
    axes.plot([row["limit"] for row in shown], places, "|", color=NEUTRAL, markersize=11, label="limit")
    axes.set_yticks(places, [row["name"] for row in shown], fontsize=8)
    axes.set(xlabel="population stability index", title="Against the training population")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def approvals(days: Sequence[date], approved: Sequence[int], rows: Sequence[int]) -> Figure:
    """The share approved each day, with its 95 % interval."""
    figure, axes = new_figure(6.4, 3.2)
    rates = [yes / count for yes, count in zip(approved, rows, strict=True)]
    ends = [wilson(yes, count) for yes, count in zip(approved, rows, strict=True)]
    axes.fill_between(days, [low for low, _ in ends], [high for _, high in ends], color=SHADE)
    axes.plot(days, rates, color=GOOD, marker="o", markersize=3)
    axes.set(ylim=(0, 1.02), ylabel="approved", title="Approvals by day")
    figure.autofmt_xdate()
    return figure


def estimates(chunks: Sequence[Mapping[str, Any]], lines: Mapping[str, float | None]) -> Figure:
    """Estimated accuracy, AUC, Brier score and bad rate by chunk with their intervals; dashes: the owner's lines."""
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    places = list(range(len(chunks)))
    for number, (name, title) in enumerate(
        (("auc", "AUC"), ("accuracy", "accuracy"), ("brier", "Brier score"), ("bad_rate", "share not repaid"))
    ):
        axes = figure.add_subplot(2, 2, number + 1)
        axes.spines[["top", "right"]].set_visible(False)
        told = [place for place in places if chunks[place][name]["value"] is not None]
        values = np.array([chunks[place][name]["value"] for place in told])
        ends = np.array([chunks[place][name]["interval"] for place in told]).reshape(-1, 2)
        beyond = np.maximum(0, [values - ends[:, 0], ends[:, 1] - values])
        axes.errorbar(told, values, yerr=beyond, marker="o", markersize=4, color=GOOD, ecolor=NEUTRAL, elinewidth=0.8)
        if (line := lines.get(name)) is not None:
            axes.axhline(line, color=BAD, linestyle="--", linewidth=1)
        axes.set(title=title)
        axes.set_xticks(places, [chunk["last_day"][5:] for chunk in chunks], rotation=60, fontsize=7)
    return figure


def bad_rates(bands: Sequence[Mapping[str, Any]]) -> Figure:
    """The share not repaid by score band with its interval, best band first, beside what the scores expect."""
    figure, axes = new_figure(6.0, 3.6)
    places = np.arange(len(bands))
    rates = np.array([band["bad_rate"] for band in bands])
    ends = np.array([band["interval"] for band in bands])
    beyond = np.maximum(0, [rates - ends[:, 0], ends[:, 1] - rates])
    axes.bar(places, rates, yerr=beyond, color=BAD, alpha=0.8, ecolor=NEUTRAL, label="not repaid")
    axes.plot(places, [band["expected_bad_rate"] for band in bands], color=NEUTRAL, marker="o", label="expected")
    axes.set_xticks(places, [f"{band['from']:.2f}" for band in bands], fontsize=8)
    axes.set(xlabel="lowest score of the band", ylabel="share of the loans", title="Loans by score")
    axes.legend(frameon=False, fontsize=8)
    return figure
