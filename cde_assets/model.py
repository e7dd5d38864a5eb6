"""Stage model: out-of-fold scores, the challenger in its served form, and how good it is."""

import platform
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from cde_assets.metadata import OWNERS, picture, table
from cde_domain.application import columns_of
from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.policy import Policy
from cde_domain.features.feature import feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.features.table import matrix_of
from cde_domain.model.evaluation import Performance, compare, decision_mix
from cde_domain.model.scoring_model import ScoringModel, model_digest
from cde_domain.portfolio import Portfolio
from cde_domain.release import Bundle, BundleError
from cde_resources.artefacts import recorded_digest
from cde_resources.mlflow import MlflowResource, training_run
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.ledger import LedgerError

GROUP = "model"


def labels_of(rows: pd.DataFrame) -> np.ndarray:
    """The 0/1 outcomes of labelled rows as float64."""
    return rows["repaid"].to_numpy(dtype=np.float64)


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"xgboost", "parquet"})
def out_of_fold_scores(
    context: dg.AssetExecutionContext, portfolio: PortfolioResource, feature_table: pd.DataFrame
) -> pd.DataFrame:
    """Every labelled application scored by a model that saw neither it nor its customer."""
    from cde_domain.training.boosting import BoostingSettings
    from cde_domain.training.challenger import cross_fitted_scores, folds_of, out_of_fold_margins

    lending = portfolio.load()
    settings = BoostingSettings(**lending.boosting)
    rows = feature_table[feature_table["repaid"].notna()].reset_index(drop=True)
    repaid = labels_of(rows)
    fold = folds_of(repaid, rows["customer_id"].to_numpy(), seed=settings.seed)
    margins = out_of_fold_margins(lending.features, matrix_of(lending, rows), repaid, fold, settings)
    scores = cross_fitted_scores(margins, repaid, fold)
    performance = Performance.of(repaid, scores)
    context.add_output_metadata(
        {
            "auc": performance.auc,
            "brier": performance.brier,
            "calibration_error": performance.calibration_error,
            "roc": picture(_pictures().roc_curve(repaid, scores), "ROC"),
            "calibration": picture(_pictures().calibration_curve(repaid, scores), "calibration"),
        }
    )
    return rows[["application_id", "repaid"]].assign(fold=fold, margin=margins, score=scores)


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"xgboost", "mlflow"})
def challenger_model(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    registry: MlflowResource,
    mlflow: dg.ResourceParam[Any],
    training_set: pd.DataFrame,
) -> dict[str, Any]:
    """Monotone XGBoost, calibrated on out-of-fold margins and compiled to the arrays that are gated and served."""
    import xgboost
    from mlflow.xgboost import log_model

    from cde_domain.training.boosting import BoostingSettings
    from cde_domain.training.challenger import fit_scoring_model

    lending = portfolio.load()
    settings = BoostingSettings(**lending.boosting)
    policy = Policy.read(lending.policy_file)
    data_digest = recorded_digest(context.instance, dg.AssetKey([*context.asset_key.path[:-1], "training_set"]))
    provenance: dict[str, Any] = {
        "portfolio": lending.name,
        "training_set_sha256": data_digest,
        "training_rows": len(training_set),
        "library": f"xgboost {xgboost.__version__}",
        "python": platform.python_version(),
        "parameters": {**settings.parameters(), "rounds": settings.rounds},
    }
    context.log.info(f"fitting on {len(training_set)} applications: 5 folds for the calibrator, then the final model")
    with training_run(context, mlflow) as tracking:
        tracking.log_params({**provenance["parameters"], "training_rows": len(training_set)})
        tracking.set_tags({"portfolio": lending.name, "training_set_sha256": data_digest})
        fitted = fit_scoring_model(
            lending.features,
            matrix_of(lending, training_set),
            labels_of(training_set),
            training_set["customer_id"].to_numpy(),
            settings,
            approve_at=policy.approve_at,
            provenance=provenance,
        )
        digest = _store(portfolio, fitted.scoring_model, fitted.booster)
        trees = fitted.scoring_model.trees
        tracking.log_metrics({"trees": len(trees.root), "leaves": len(trees.leaf_value)})
        logged = log_model(
            fitted.booster,
            name="model",
            model_format="ubj",
            registered_model_name=registry.experiment,
            pip_requirements=[f"xgboost=={xgboost.__version__}"],
        )
        tracking.log_artifacts(str(portfolio.models / digest / "served"), artifact_path="served")
        version = str(logged.registered_model_version)
        registry.client().set_model_version_tag(registry.experiment, version, "model_digest", digest)
        registry.set_alias("challenger", version)
        run_id = tracking.active_run().info.run_id
    context.add_output_metadata(
        {
            "model_digest": digest,
            "mlflow_run": dg.MetadataValue.url(registry.run_url(run_id)),
            "mlflow_version": version,
            "trees": len(trees.root),
            "leaves": len(trees.leaf_value),
            "served_megabytes": float(trees.table.nbytes / 1e6),
            "calibrator_slope": fitted.scoring_model.calibrator.slope,
            "training_rows": len(training_set),
        }
    )
    return {"digest": digest, "mlflow_run_id": run_id, "mlflow_version": version, "provenance": provenance}


def _store(portfolio: PortfolioResource, model: ScoringModel, booster: Any) -> str:
    import shutil
    import tempfile
    from pathlib import Path

    portfolio.models.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=portfolio.models))
    try:
        digest = model.save(staging / "served")
        booster.save_model(staging / "booster.ubj")
        target = portfolio.models / digest
        if target.exists() and model_digest(target / "served") != digest:
            shutil.rmtree(target)  # damaged since it was written
        if not target.exists():
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return digest


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"mlflow"})
def evaluation(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    registry: MlflowResource,
    releases: ReleasesResource,
    challenger_model: dict[str, Any],
    holdout_set: pd.DataFrame,
    out_of_fold_scores: pd.DataFrame,
    loan_book: pd.DataFrame,
) -> dict[str, Any]:
    """How well the challenger ranks and estimates repayment: held out, across folds, and against the champion."""
    lending = portfolio.load()
    policy = Policy.read(lending.policy_file)
    model = portfolio.scoring_model(challenger_model["digest"])
    matrix, repaid = matrix_of(lending, holdout_set), labels_of(holdout_set)
    scores = model.scores(matrix)
    decisions = decide_all(lending.features, matrix, scores, policy, model)
    report = {
        "model_digest": challenger_model["digest"],
        "portfolio_code": portfolio.code_digest(),
        "holdout": Performance.of(repaid, scores).as_json(),
        "cross_validation": _cross_validation(out_of_fold_scores),
        "decisions": decision_mix(decisions, repaid),
        "policy": {"version": policy.version, "approve_at": policy.approve_at, "review_at": policy.review_at},
        "champion": _against_champion(releases, loan_book, holdout_set, scores),
    }
    client, run_id = registry.client(), challenger_model["mlflow_run_id"]
    for part in ("holdout", "cross_validation"):
        for name, value in report[part].items():
            if isinstance(value, float):
                client.log_metric(run_id, f"{part}_{name}", value)
    draw = _pictures()
    roc = draw.roc_curve(repaid, scores)
    client.log_figure(run_id, roc, "roc.png")
    context.add_output_metadata(
        {
            "auc": report["holdout"]["auc"],
            "gini": report["holdout"]["gini"],
            "ks": report["holdout"]["ks"],
            "brier": report["holdout"]["brier"],
            "calibration_error": report["holdout"]["calibration_error"],
            "cross_validated_auc": report["cross_validation"]["auc_mean"],
            "cross_validated_auc_sd": report["cross_validation"]["auc_sd"],
            "approval_rate": report["decisions"]["approval_rate"],
            "review_rate": report["decisions"]["review_rate"],
            "mlflow_run": dg.MetadataValue.url(registry.run_url(run_id)),
            "roc": picture(roc, "ROC"),
            "calibration": picture(draw.calibration_curve(repaid, scores), "calibration"),
            "scores": picture(draw.score_histogram(scores, repaid, policy.approve_at, policy.review_at), "scores"),
            "holdout": table([{"measure": name, "value": value} for name, value in report["holdout"].items()]),
        }
    )
    return report


def _cross_validation(scored: pd.DataFrame) -> dict[str, Any]:
    from cde_domain.model.metrics import auc

    areas = [auc(labels_of(part), part["score"].to_numpy()) for _, part in scored.groupby("fold")]
    pooled = Performance.of(labels_of(scored), scored["score"].to_numpy()).as_json()
    return {**pooled, "folds": len(areas), "auc_mean": float(np.mean(areas)), "auc_sd": float(np.std(areas, ddof=1))}


def _against_champion(
    releases: ReleasesResource, book: pd.DataFrame, holdout: pd.DataFrame, challenger_scores: np.ndarray
) -> dict[str, Any] | None:
    try:
        champion = releases.store().current()
        if champion is None:
            return None
        scores = _champion_scores(champion, book, holdout)
    except (BundleError, LedgerError, KeyError) as error:
        return {"comparable": False, "reason": f"the champion cannot score this book ({type(error).__name__})"}
    return {"comparable": True, "bundle": champion.digest, **compare(labels_of(holdout), challenger_scores, scores)}


def _champion_scores(champion: Bundle, book: pd.DataFrame, holdout: pd.DataFrame) -> np.ndarray:
    lending: Portfolio = champion.portfolio
    rows = book.set_index("application_id", drop=False).loc[holdout["application_id"]].reset_index(drop=True)
    matrix = feature_matrix(lending.features, columns_of_frame(rows, columns_of(lending.application)))
    return champion.engine.model.scores(matrix)


def _pictures() -> Any:
    from cde_assets import pictures  # matplotlib takes a second to import

    return pictures
