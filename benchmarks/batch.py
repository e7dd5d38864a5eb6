"""A million rows from a feature table to scores, Parquet to Parquet, on one thread."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.lender import Array, Lender
from benchmarks.rounds import Figure, Results, in_turn
from cde_domain.training.boosting import to_dmatrix

ROWS = 1_000_000
EXPLAINED = 20_000
XGBOOST, PRED_CONTRIBS = "Booster.inplace_predict", "XGBoost pred_contribs"


def _read(path: Path) -> Array:
    table = pq.read_table(path, use_threads=False)
    return np.column_stack([column.to_numpy() for column in table.columns])


def _write(path: Path, scores: Array) -> None:
    pq.write_table(pa.table({"score": scores}), path)


def measure(lender: Lender, rounds: int, console: Console) -> dict[str, Figure]:
    """Batch without and with reasons."""
    scores, reasons = _scores_of_a_million(lender, rounds), _with_reasons(lender, rounds)
    scores.show(console, "Batch, Parquet to Parquet, without reasons")
    reasons.show(console, "Batch, with reasons")
    return scores.figures({XGBOOST: "batch_score_vs_xgboost"}) | reasons.figures(
        {PRED_CONTRIBS: "batch_reasons_vs_pred_contribs"}
    )


def _scores_of_a_million(lender: Lender, rounds: int, rows: int = ROWS) -> Results:
    """The rows of the book, repeated; ours also calibrates."""
    features, model = lender.portfolio.features, lender.bundle.engine.model
    booster = lender.booster.booster
    booster.set_param({"nthread": 1})
    source, target = lender.home / "features.parquet", lender.home / "scores.parquet"
    chosen = np.random.default_rng(0).integers(0, len(lender.matrix), rows)
    columns = {feature.name: lender.matrix[chosen, position] for position, feature in enumerate(features)}
    pq.write_table(pa.table(columns), source)

    def ours() -> float:
        began = time.perf_counter()
        _write(target, model.scores(_read(source)))
        return time.perf_counter() - began

    def xgboost() -> float:
        began = time.perf_counter()
        _write(target, booster.inplace_predict(_read(source)).astype(np.float64))
        return time.perf_counter() - began

    return in_turn({"compiled trees": ours, XGBOOST: xgboost}, rounds, unit=f"s for {rows:,} rows")


def _with_reasons(lender: Lender, rounds: int) -> Results:
    """Exact contributions of many rows."""
    features, trees, booster = lender.portfolio.features, lender.bundle.engine.model.trees, lender.booster.booster
    chosen = lender.matrix[np.random.default_rng(1).integers(0, len(lender.matrix), EXPLAINED)]

    def ours() -> float:
        began = time.perf_counter()
        trees.explain(chosen)
        return EXPLAINED / (time.perf_counter() - began)

    def contributions() -> float:
        began = time.perf_counter()
        booster.predict(to_dmatrix(features, chosen), pred_contribs=True)
        return EXPLAINED / (time.perf_counter() - began)

    contenders = {"compiled trees": ours, PRED_CONTRIBS: contributions}
    return in_turn(contenders, rounds, unit="rows a second", higher_is_better=True)
