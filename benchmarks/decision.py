"""One explained decision in this process, against XGBoost's and shap's own explanations of a score."""

import json
import time
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.lender import Array, Lender
from benchmarks.rounds import Figure, in_turn
from cde_domain.training.boosting import to_dmatrix

ASKED = 1_000
KERNEL = "the kernel alone: score and contributions"
TODAY = date(2026, 3, 2)


def median_us(work: Callable[[Any], object], given: Sequence[Any]) -> float:
    """The median time of one call in microseconds, each on another application."""
    times = np.empty(len(given))
    for position, one in enumerate(given):
        began = time.perf_counter_ns()
        work(one)
        times[position] = time.perf_counter_ns() - began
    return float(np.median(times)) / 1e3


def measure(lender: Lender, rounds: int, console: Console) -> dict[str, Figure]:
    """Ours starts from the body of a request; the others are given the features as an array."""
    import shap

    engine, features, booster = lender.bundle.engine, lender.portfolio.features, lender.booster.booster
    bodies = [json.dumps(body).encode() for body in lender.applications(ASKED)]
    rows = [lender.matrix[position : position + 1] for position in range(ASKED)]
    explainer = shap.TreeExplainer(booster)

    def decide(body: bytes) -> object:
        return engine.decide(lender.portfolio.application.model_validate_json(body), TODAY)

    def decide_validated(application: Any) -> object:
        return engine.decide(application, TODAY)

    def contributions(row: Array) -> object:
        return booster.predict(to_dmatrix(features, row), pred_contribs=True)

    def tree_explainer(row: Array) -> object:
        return explainer.shap_values(to_dmatrix(features, row))

    applications = [lender.portfolio.application.model_validate_json(body) for body in bodies]
    contenders: dict[str, Callable[[], float]] = {
        "explained decision from a validated application": lambda: median_us(decide_validated, applications),
        "the same from the request's bytes": lambda: median_us(decide, bodies),
        KERNEL: lambda: median_us(engine.model.trees.explain, rows),
        "XGBoost pred_contribs": lambda: median_us(contributions, rows),
        "shap.TreeExplainer": lambda: median_us(tree_explainer, rows[:200]),
    }
    for warm_up in contenders.values():
        warm_up()
    results = in_turn(contenders, rounds, unit="µs a decision")
    results.show(console, "One explained decision in process")
    names = {"XGBoost pred_contribs": "explain_vs_pred_contribs", "shap.TreeExplainer": "explain_vs_shap"}
    return results.figures(names, ours=KERNEL)
