"""The challenger: the chosen candidate in its library's form and in the form that is served."""

import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from cde_assets.metadata import OWNERS, picture
from cde_domain.decisions.policy import Policy
from cde_domain.digests import file_digest
from cde_domain.features.table import labels_of, matrix_of
from cde_domain.model.evaluation import Performance
from cde_domain.model.scoring_model import ScoringModel, model_digest
from cde_resources.artefacts import recorded_digest
from cde_resources.mlflow import MlflowResource, log_library_model, training_run
from cde_resources.portfolio import PortfolioResource

GROUP = "model"


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"parquet"})
def out_of_fold_scores(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    candidate_models: dict[str, Any],
    feature_table: pd.DataFrame,
) -> pd.DataFrame:
    """Every labelled application scored by the chosen candidate where it saw neither it nor its customer."""
    from cde_assets import pictures
    from cde_domain.training.candidates import learner_of
    from cde_domain.training.challenger import cross_fitted_scores, folds_of, out_of_fold_margins

    lending = portfolio.load()
    learner = learner_of(candidate_models["chosen"])
    rows = feature_table[feature_table["repaid"].notna()].reset_index(drop=True)
    repaid = labels_of(rows)
    fold = folds_of(repaid, rows["customer_id"].to_numpy(), seed=learner.seed)
    margins = out_of_fold_margins(lending.features, matrix_of(lending, rows), repaid, fold, learner)
    scores = cross_fitted_scores(margins, repaid, fold)
    performance = Performance.of(repaid, scores)
    context.add_output_metadata(
        {
            "auc": performance.auc,
            "brier": performance.brier,
            "calibration_error": performance.calibration_error,
            "roc": picture(pictures.roc_curve(repaid, scores), "ROC"),
            "calibration": picture(pictures.calibration_curve(repaid, scores), "calibration"),
        }
    )
    return rows[["application_id", "repaid"]].assign(fold=fold, margin=margins, score=scores)


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"mlflow"})
def challenger_model(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    registry: MlflowResource,
    mlflow: dg.ResourceParam[Any],
    candidate_models: dict[str, Any],
    training_set: pd.DataFrame,
) -> dict[str, Any]:
    """The chosen candidate, calibrated on out-of-fold margins and compiled to the arrays that are gated and served."""
    from cde_domain.training.candidates import TITLES, learner_of
    from cde_domain.training.challenger import fit_scoring_model

    lending = portfolio.load()
    learner = learner_of(candidate_models["chosen"])
    data_digest = recorded_digest(context.instance, dg.AssetKey([*context.asset_key.path[:-1], "training_set"]))
    provenance: dict[str, Any] = {
        "portfolio": lending.name,
        "training_set_sha256": data_digest,
        "training_rows": len(training_set),
        "kind": TITLES[learner.kind],
        "margin": learner.margin,
        "library": learner.library(),
        "python": platform.python_version(),
        "parameters": candidate_models["chosen"]["settings"],
        "learner": candidate_models["chosen"]["kind"],
        "chosen_because": candidate_models["reason"],
    }
    context.log.info(f"fitting on {len(training_set)} applications: 5 folds for the calibrator, then the final model")
    with training_run(context, mlflow) as tracking:
        tracking.log_params({**provenance["parameters"], "learner": learner.kind, "training_rows": len(training_set)})
        tracking.set_tags({"portfolio": lending.name, "training_set_sha256": data_digest})
        fitted = fit_scoring_model(
            lending.features,
            matrix_of(lending, training_set),
            labels_of(training_set),
            training_set["customer_id"].to_numpy(),
            learner,
            approve_at=Policy.read(lending.policy_file).approve_at,
            provenance=provenance,
        )
        digest, library = _store(portfolio, fitted.scoring_model, fitted.library_model)
        trees = fitted.scoring_model.trees
        tracking.log_metrics({"trees": len(trees.root), "leaves": len(trees.leaf_value)})
        logged = log_library_model(fitted.library_model, registered_model_name=registry.experiment)
        tracking.log_artifacts(str(portfolio.models / digest / "served"), artifact_path="served")
        version = str(logged.registered_model_version)
        registry.client().set_model_version_tag(registry.experiment, version, "model_digest", digest)
        registry.set_alias("challenger", version)
        run_id = tracking.active_run().info.run_id
    context.add_output_metadata(
        {
            "model_digest": digest,
            "kind": provenance["kind"],
            "chosen_because": candidate_models["reason"],
            "mlflow_run": dg.MetadataValue.url(registry.run_url(run_id)),
            "mlflow_version": version,
            "trees": len(trees.root),
            "leaves": len(trees.leaf_value),
            "served_megabytes": trees.megabytes,
            "calibrator_slope": fitted.scoring_model.calibrator.slope,
            "training_rows": len(training_set),
            "library_form": dg.MetadataValue.path(str(portfolio.models / digest / library["file"])),
        }
    )
    return {
        "digest": digest,
        "library": library,
        "mlflow_run_id": run_id,
        "mlflow_version": version,
        "provenance": provenance,
    }


def _store(portfolio: PortfolioResource, model: ScoringModel, library_model: Any) -> tuple[str, dict[str, str]]:
    """Keep a model twice, in the form that is served and in its library's own; return digest and library file."""
    portfolio.models.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=portfolio.models))
    try:
        digest = model.save(staging / "served")
        unnamed = staging / f"model{library_model.suffix}"
        library_model.save(unnamed)
        sha256 = file_digest(unnamed)
        # Named by its digest, because skops writes the time into its files: two of one model are not the same bytes.
        library = {"file": f"library/{sha256}{library_model.suffix}", "sha256": sha256}
        folder = portfolio.models / digest
        folder.joinpath("library").mkdir(parents=True, exist_ok=True)
        if (folder / "served").exists() and model_digest(folder / "served") != digest:
            shutil.rmtree(folder / "served")  # damaged since it was written
        if not (folder / "served").exists():
            (staging / "served").rename(folder / "served")
        unnamed.rename(folder / library["file"])
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return digest, library
