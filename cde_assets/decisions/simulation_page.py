"""How a simulation is told: its tables as text, for the terminal, the UI and the page."""

from pathlib import Path
from typing import Any

HEADINGS = {
    "approval_rate": "Approved",
    "review_rate": "Sent to a person",
    "rejection_rate": "Rejected",
    "lent": "Lent, of the amount asked for",
    "expected_bad_rate": "Expected bad rate of approved loans",
    "expected_profit": "Expected profit of 100 applied for",
    "expected_return": "Expected profit of 100 lent",
    "outcome_known": "Approved loans of known outcome",
    "bad_rate": "Bad rate where the outcome is known",
    "return": "Profit of 100 lent where the outcome is known",
}

Rows = list[dict[str, str]]


def title(report: dict[str, Any]) -> str:
    """What was simulated, in one line."""
    policy, bundle = report["policy"], report["bundle"]
    parts = [f"policy {policy['file']}, version {policy['version']}"] if policy else []
    parts += [f"model of bundle {bundle[:12]}"] if bundle else []
    return " and ".join(parts)


def tables(report: dict[str, Any]) -> dict[str, Rows]:
    """The tables of a report, by their names, with text in every cell; without the empty ones."""
    found = {
        "Figures, with 95 % intervals": [_figure(figure) for figure in report["figures"]],
        "What changes": [_move(move) for move in report["moves"]],
        "Fairness: impact ratios": [_group(row) for row in report["fairness"]],
    }
    return {name: rows for name, rows in found.items() if rows}


def page(report: dict[str, Any]) -> str:
    """The report as one HTML page without anything to load."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, autoescape=True
    )
    template = environment.get_template("policy_simulation.html.jinja")
    return template.render(report=report, title=title(report), tables=tables(report))


def _figure(figure: dict[str, Any]) -> dict[str, str]:
    unit, judge = figure["unit"], figure["judged_by"]
    name = HEADINGS[figure["name"]] + (f", by the {judge}" if judge.startswith("scores of") else "")
    return {
        "figure": name,
        "actual": _estimate(figure["actual"], unit),
        "simulated": _estimate(figure["simulated"], unit),
        "change": _estimate(figure["change"], unit, signed=True),
    }


def _move(move: dict[str, Any]) -> dict[str, str]:
    known = f"{_share(move['bad_rate'])} of {move['outcomes_known']:,}" if move["outcomes_known"] else "-"
    return {
        "from": move["from"],
        "to": move["to"],
        "decisions": f"{move['decisions']:,}",
        "expected bad": _share(move["expected_bad_rate"]),
        "bad, of known": known,
        "why": move["why"],
    }


def _group(row: dict[str, Any]) -> dict[str, str]:
    told = {"attribute": row["attribute"], "group": row["group"], "applications": f"{row['rows']:,}"}
    for side in ("actual", "simulated"):
        told[f"{side} approval"] = _share(row[f"{side}_approval_rate"])
        told[f"{side} ratio"] = _ratio(row, side)
    return told


def _estimate(estimate: dict[str, Any] | None, unit: str, *, signed: bool = False) -> str:
    """An estimate with its interval: shares in per cent, a change in percentage points with its sign."""
    if estimate is None:
        return "-"
    factor, mark = (100, " pp" if signed else " %") if unit == "share" else (1, "")
    sign = "+" if signed else ""

    def number(value: float) -> str:
        return f"{factor * value:{sign}.2f}"

    told = number(estimate["value"]) + mark
    if estimate["interval"] is None:
        return told
    low, high = estimate["interval"]
    return f"{told} ({number(low)} to {number(high)})"


def _ratio(row: dict[str, Any], side: str) -> str:
    value, interval = row[f"{side}_impact_ratio"], row[f"{side}_interval"]
    verdict = row[f"{side}_verdict"].replace("_", " ")
    return verdict if value is None else f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f}) {verdict}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
