"""The latency report: does the challenger fit the serving budget?"""

import json
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from cde_assets.metadata import OWNERS
from cde_domain.application import columns_of, request_of
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.policy import Policy
from cde_domain.features.table import matrix_of
from cde_resources.portfolio import PortfolioResource

GROUP = "governance"
ASKED = 1_000
WARM_UP = 50
BATCH = 20_000


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"json"})
def latency_report(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    challenger_model: dict[str, Any],
    holdout_set: pd.DataFrame,
    loan_book: pd.DataFrame,
) -> dict[str, Any]:
    """
    What one explained decision takes in process, from the request's bytes to reasons, and how fast many are scored.

    Every hold-out application asked is another one, and none is asked twice in a row.
    """
    lending = portfolio.load()
    model = portfolio.scoring_model(challenger_model["digest"])
    engine = DecisionEngine(lending, model, Policy.read(lending.policy_file))
    columns = columns_of(lending.application)
    asked = loan_book[loan_book["application_id"].isin(holdout_set["application_id"].head(ASKED))]
    requests = [
        (
            json.dumps(request_of(row, columns)).encode(),
            (pd.Timestamp(0) if pd.isna(row["applied_at"]) else row["applied_at"]).date(),
        )
        for row in asked.to_dict("records")
    ]

    def decide(body: bytes, applied_at: date) -> None:
        engine.decide(lending.application.model_validate_json(body), applied_at)

    for request in requests[:WARM_UP]:
        decide(*request)
    milliseconds = np.array([_seconds(partial(decide, *request)) for request in requests]) * 1e3
    matrix = matrix_of(lending, holdout_set)
    many = matrix[np.random.default_rng(0).integers(0, len(matrix), BATCH)]
    report = {
        "model_digest": challenger_model["digest"],
        "decisions": len(requests),
        "decision_p50_ms": float(np.quantile(milliseconds, 0.5)),
        "decision_p99_ms": float(np.quantile(milliseconds, 0.99)),
        "batch_rows": BATCH,
        "scores_per_second": BATCH / _seconds(lambda: model.scores(many)),
        "explanations_per_second": BATCH / _seconds(lambda: model.trees.explain(many)),
        "served_megabytes": model.trees.megabytes,
        "budget_p50_ms": lending.thresholds.max_decision_ms,
    }
    context.add_output_metadata({name: value for name, value in report.items() if isinstance(value, float | int)})
    return report


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
