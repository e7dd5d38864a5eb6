"""The report on an experiment as a page for a browser, with its pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from cde_assets.metadata import png_base64
from cde_assets.pictures import BAD, GOOD, NEUTRAL, SHADE

TEMPLATE = "experiment_report.html.jinja"
WORST = 15  # parts of the population that are drawn


def drawn(report: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The pictures as PNG in base64, with their titles."""
    return {name: (title, png_base64(figure, dpi=80)) for name, (title, figure) in pictures_of(report).items()}


def page_of(report: Mapping[str, Any], pictures: Mapping[str, tuple[str, str]]) -> str:
    """One self-contained page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["number"] = lambda value: "" if value is None else f"{value:.4g}"
    environment.filters["interval"] = lambda value: "" if value is None else f"{value[0]:.3f} to {value[1]:.3f}"
    return environment.get_template(TEMPLATE).render(report=report, pictures=pictures)


def pictures_of(report: Mapping[str, Any]) -> dict[str, tuple[str, Figure]]:
    """The pictures for which there is something to draw, with their titles."""
    pictures = {}
    if compared := [row for row in report["comparisons"] if row["interval"] is not None]:
        pictures["guardrails"] = ("Differences beside what is tolerated", _guardrails(compared))
    if any(row["challenger_rows"] for row in report["steps"]):
        pictures["steps"] = ("Approval by step", _steps(report["steps"]))
    for shadow in report["shadows"]:
        if parts := [part for part in shadow["parts"] if part["rate"] is not None]:
            pictures[f"shadow {shadow['bundle'][:8]}"] = ("Where the shadow differs", _disagreements(parts))
    return pictures


def _guardrails(rows: list[Mapping[str, Any]]) -> Figure:
    """Each difference over its bound, so that 1 is what is tolerated."""
    figure, axes = _figure(len(rows))
    for place, row in enumerate(reversed(rows)):
        low, high = (end / row["bound"] for end in row["interval"])
        colour = BAD if row["breached"] else GOOD
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(row["difference"] / row["bound"], place, marker="o", color=colour)
    for edge in (-1, 1):
        axes.axvline(edge, color=NEUTRAL, linestyle="--", linewidth=1)
    axes.axvline(0, color=SHADE)
    axes.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    axes.set(xlabel="challenger minus champion, in units of what is tolerated", xlim=(-4, 4))
    return figure


def _steps(rows: list[Mapping[str, Any]]) -> Figure:
    figure, axes = _figure(6)
    for name, colour in (("champion", NEUTRAL), ("challenger", GOOD)):
        known = [(place, row[f"{name}_approved"]) for place, row in enumerate(rows) if row[f"{name}_rows"]]
        axes.plot(*zip(*known, strict=True), marker="o", color=colour, label=name) if known else None
    axes.set_xticks(range(len(rows)), [f"{row['weight']:.0%}" for row in rows])
    axes.set(xlabel="customers of the challenger", ylabel="approved", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    return figure


def _disagreements(parts: list[Mapping[str, Any]]) -> Figure:
    shown = sorted(parts, key=lambda part: part["rate"])[-WORST:]
    figure, axes = _figure(len(shown))
    for place, part in enumerate(shown):
        axes.barh(place, part["rate"], color=GOOD, alpha=0.75, height=0.6)
        axes.plot(part["interval"], [place, place], color="black", linewidth=1)
    axes.set_yticks(range(len(shown)), [f"{part['by']}: {part['part']} (n={part['rows']})" for part in shown])
    axes.set(xlabel="decided otherwise than answered")
    return figure


def _figure(rows: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 0.4 * rows + 1.2), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
