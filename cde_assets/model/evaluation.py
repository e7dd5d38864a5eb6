"""How good the challenger is, what its cut-offs mean for the book, and what changes against the champion."""

from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_assets.metadata import OWNERS, picture, table
from cde_domain.application import columns_of
from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.monitoring.reference import Reference
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.features.feature import feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.features.table import labels_of, matrix_of
from cde_domain.governance.fairness import SMALL_BOOK
from cde_domain.intervals import wilson
from cde_domain.model import cut_offs
from cde_domain.model.evaluation import Performance, by_quarter, compare, decision_mix, swap_set
from cde_domain.model.metrics import auc, calibration_bins
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio import Portfolio
from cde_domain.release import Bundle, BundleError
from cde_resources.mlflow import MlflowResource
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.ledger import LedgerError

GROUP = "model"

Array = NDArray[np.float64]


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"mlflow"})
def evaluation(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    registry: MlflowResource,
    releases: ReleasesResource,
    candidate_models: dict[str, Any],
    challenger_model: dict[str, Any],
    feature_table: pd.DataFrame,
    holdout_set: pd.DataFrame,
    out_of_fold_scores: pd.DataFrame,
    loan_book: pd.DataFrame,
) -> dict[str, Any]:
    """
    How well the challenger ranks and estimates repayment, what its cut-offs earn, and whose decision changes.

    Score bands, cut-offs and profit are measured on the hold-out; below 5,000 labelled applications on out-of-fold
    scores of the whole book.
    """
    lending = portfolio.load()
    policy = Policy.read(lending.policy_file)
    model = portfolio.scoring_model(challenger_model["digest"])
    matrix, repaid = matrix_of(lending, holdout_set), labels_of(holdout_set)
    scores = model.scores(matrix)
    decisions = decide_all(lending.features, matrix, scores, policy, model)
    basis = _basis(lending, policy, model, feature_table, holdout_set, out_of_fold_scores)
    report = {
        "model_digest": challenger_model["digest"],
        "portfolio_code": portfolio.code_digest(),
        "holdout": Performance.of(repaid, scores).as_json(),
        "cross_validation": _cross_validation(out_of_fold_scores),
        "decisions": decision_mix(decisions, repaid),
        "policy": {"version": policy.version, "approve_at": policy.approve_at, "review_at": policy.review_at},
        "quarters": _quarters(holdout_set, repaid, scores),
        "calibration": _calibration(model, lending, holdout_set, out_of_fold_scores),
        "credit_policy": _credit_policy(lending, policy, basis),
        "reference": _reference(basis, holdout_set, out_of_fold_scores).as_json(),
        "benchmarks": _benchmarks(candidate_models),
        **_against_champion(releases, loan_book, holdout_set, scores, decisions),
    }
    _show(context, registry, challenger_model["mlflow_run_id"], lending, report, repaid, scores)
    return report


def _cross_validation(scored: pd.DataFrame) -> dict[str, Any]:
    areas = [auc(labels_of(part), part["score"].to_numpy()) for _, part in scored.groupby("fold")]
    pooled = Performance.of(labels_of(scored), scored["score"].to_numpy()).as_json()
    return {**pooled, "folds": len(areas), "auc_mean": float(np.mean(areas)), "auc_sd": float(np.std(areas, ddof=1))}


def _quarters(holdout: pd.DataFrame, repaid: Array, scores: Array) -> list[dict[str, Any]]:
    dates = holdout["applied_at"]
    return by_quarter(dates.to_numpy(dtype="datetime64[D]"), repaid, scores) if dates.notna().all() else []


def _calibration(
    model: ScoringModel, lending: Portfolio, holdout: pd.DataFrame, out_of_fold: pd.DataFrame
) -> dict[str, Any]:
    """Mean score and repayment rate in ten bins of equally many applications, best scores last."""
    small = len(out_of_fold) < SMALL_BOOK
    rows = out_of_fold if small else holdout
    scores = rows["score"].to_numpy() if small else model.scores(matrix_of(lending, rows))
    return {
        "measured_on": "out_of_fold" if small else "holdout",
        "rows": len(rows),
        "bins": [
            {
                "mean_score": score,
                "repaid": rate,
                "interval": list(wilson(round(rate * count), int(count))),
                "rows": int(count),
            }
            for score, rate, count in calibration_bins(labels_of(rows), scores).tolist()
        ],
    }


@dataclass(frozen=True)
class _Basis:
    """The applications by which cut-offs are judged and what is decided later is held against."""

    measured_on: str
    repaid: Array
    scores: Array
    decisions: NDArray[np.str_]


def _basis(
    lending: Portfolio,
    policy: Policy,
    model: ScoringModel,
    features: pd.DataFrame,
    holdout: pd.DataFrame,
    out_of_fold: pd.DataFrame,
) -> _Basis:
    small = len(out_of_fold) < SMALL_BOOK
    rows = features.set_index("application_id").loc[out_of_fold["application_id"]] if small else holdout
    matrix = matrix_of(lending, rows)
    scores = out_of_fold["score"].to_numpy() if small else model.scores(matrix)
    decisions = decide_all(lending.features, matrix, scores, policy, model)
    return _Basis("out_of_fold" if small else "holdout", labels_of(rows), scores, decisions)


def _credit_policy(lending: Portfolio, policy: Policy, basis: _Basis) -> dict[str, Any]:
    """What a credit officer reads before approving: bands, cut-offs and profit."""
    repaid, scores, decisions = basis.repaid, basis.scores, basis.decisions
    approved, named = decisions == Outcome.APPROVED, {"review_at": policy.review_at, "approve_at": policy.approve_at}
    earned = lending.economics
    return {
        "measured_on": basis.measured_on,
        "rows": len(scores),
        "classification": [{"name": at, **cut_offs.classification(repaid, scores, cut)} for at, cut in named.items()],
        "bands": cut_offs.score_bands(repaid, scores, decisions),
        "cut_offs": cut_offs.cut_off_table(repaid, scores, earned, named),
        "curve": cut_offs.profit_curve(repaid, scores, earned),
        "approval_rate": float(approved.mean()),
        "profit": cut_offs.profit(repaid, approved, earned),
        "expected_profit": cut_offs.expected_profit(scores, approved, earned),
    }


def _reference(basis: _Basis, holdout: pd.DataFrame, out_of_fold: pd.DataFrame) -> Reference:
    """What scores, decisions and performance are held against once the model decides."""
    fitted = out_of_fold.loc[~out_of_fold["application_id"].isin(holdout["application_id"]), "score"].to_numpy()
    return Reference.of(basis.measured_on, basis.repaid, basis.scores, basis.decisions, fitted)


def _benchmarks(candidates: dict[str, Any]) -> dict[str, Any]:
    chosen = next(entry for entry in candidates["candidates"] if entry["chosen"])
    return {
        "folds": candidates["folds"],
        "rows": candidates["rows"],
        "chosen": chosen["name"],
        "reason": candidates["reason"],
        "auc": {entry["name"]: entry["auc_mean"] for entry in candidates["candidates"]},
        "differences": chosen["against"],
    }


def _against_champion(
    releases: ReleasesResource, book: pd.DataFrame, holdout: pd.DataFrame, scores: Array, decisions: NDArray[np.str_]
) -> dict[str, Any]:
    """The comparison with the champion, and the ledger's last entry at that time (0: none, None: unreadable)."""
    store, sequence = releases.store(), None
    try:
        entry = store.ledger.current()
        sequence = entry.sequence if entry else 0
        if entry is None:
            return {"ledger_entry": sequence, "champion": None}
        champion = store.load(entry)
        matrix = _champion_matrix(champion, book, holdout)
    except (BundleError, LedgerError, KeyError) as error:
        reason = f"the champion cannot score this book ({type(error).__name__})"
        return {"ledger_entry": sequence, "champion": {"comparable": False, "reason": reason}}
    engine, repaid = champion.engine, labels_of(holdout)
    champion_scores = engine.model.scores(matrix)
    theirs = decide_all(champion.portfolio.features, matrix, champion_scores, engine.policy, engine.model)
    compared = {
        "comparable": True,
        "bundle": champion.digest,
        **compare(repaid, scores, champion_scores),
        "swap_set": swap_set(repaid, decisions, theirs),
    }
    return {"ledger_entry": sequence, "champion": compared}


def _champion_matrix(champion: Bundle, book: pd.DataFrame, holdout: pd.DataFrame) -> Array:
    lending: Portfolio = champion.portfolio
    rows = book.set_index("application_id", drop=False).loc[holdout["application_id"]].reset_index(drop=True)
    return feature_matrix(lending.features, columns_of_frame(rows, columns_of(lending.application)))


def _show(
    context: dg.AssetExecutionContext,
    registry: MlflowResource,
    run_id: str,
    lending: Portfolio,
    report: dict[str, Any],
    repaid: Array,
    scores: Array,
) -> None:
    from cde_assets import pictures  # matplotlib takes a second to import

    client = registry.client()
    for part in ("holdout", "cross_validation"):
        for name, value in report[part].items():
            if isinstance(value, float):
                client.log_metric(run_id, f"{part}_{name}", value)
    policy, credit, holdout = report["policy"], report["credit_policy"], report["holdout"]
    figures = {
        "roc": pictures.roc_curve(repaid, scores),
        "calibration": pictures.calibration_curve(repaid, scores),
        "scores": pictures.score_histogram(scores, repaid, policy["approve_at"], policy["review_at"]),
        "profit": pictures.profit_curve(credit["curve"], policy["approve_at"], lending.economics.break_even),
        "bands": pictures.score_bands(credit["bands"]),
    }
    for name, figure in figures.items():
        client.log_figure(run_id, figure, f"{name}.png")
    context.add_output_metadata(
        {
            **{name: holdout[name] for name in ("auc", "gini", "ks", "brier", "calibration_error")},
            "cross_validated_auc": report["cross_validation"]["auc_mean"],
            "cross_validated_auc_sd": report["cross_validation"]["auc_sd"],
            "approval_rate": report["decisions"]["approval_rate"],
            "review_rate": report["decisions"]["review_rate"],
            "profit_per_100": credit["profit"],
            "mlflow_run": dg.MetadataValue.url(registry.run_url(run_id)),
            **{name: picture(figure, name) for name, figure in figures.items()},
            "holdout": table([{"measure": name, "value": value} for name, value in holdout.items()]),
            "score_bands": table(credit["bands"]),
            "cut_offs": table(credit["cut_offs"]),
            **({"quarters": table(report["quarters"])} if report["quarters"] else {}),
        }
    )
    champion = report["champion"]
    if champion and champion["comparable"] and champion["swap_set"]["moves"]:
        context.add_output_metadata({"swap_set": table(champion["swap_set"]["moves"])})
