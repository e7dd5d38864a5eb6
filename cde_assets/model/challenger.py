"""The challenger: the chosen candidate in its library's form and in the form that is served."""

import platform
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from cde_assets.metadata import OWNERS, picture
from cde_assets.model.continuation import chosen_learner, learned_by, refusals, training_rows
from cde_assets.model.environment import lock_digest
from cde_domain.decisions.policy import Policy
from cde_domain.digests import file_digest
from cde_domain.features.table import labels_of, matrix_of
from cde_domain.model.evaluation import Performance
from cde_domain.model.scoring_model import model_digest
from cde_domain.portfolio import Portfolio
from cde_resources.artefacts import recorded_digest
from cde_resources.mlflow import MlflowResource, log_library_model, training_run
from cde_resources.portfolio import PortfolioResource

if TYPE_CHECKING:  # scikit-learn and XGBoost take seconds to import
    from cde_domain.training.challenger import FittedModel
    from cde_domain.training.learner import TreeLearner

GROUP = "model"


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"parquet"})
def out_of_fold_scores(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    candidate_models: dict[str, Any],
    feature_table: pd.DataFrame,
) -> pd.DataFrame:
    """
    Every labelled application scored by the chosen candidate where it saw neither it nor its customer.

    Of a continued champion only the applications of customers whom the champion did not learn from.
    """
    from cde_assets import pictures
    from cde_domain.training.challenger import cross_fitted_scores, folds_of, out_of_fold_margins
    from cde_domain.training.continuation import unmet_by

    lending, chosen = portfolio.load(), candidate_models["chosen"]
    learner = chosen_learner(portfolio, chosen)
    rows = feature_table[feature_table["repaid"].notna()].reset_index(drop=True)
    if "continued" in chosen:
        rows = unmet_by(learned_by(portfolio, chosen["continued"]), rows)
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
    from cde_domain.training.candidates.comparison import TITLES
    from cde_domain.training.challenger import fit_scoring_model

    lending, chosen = portfolio.load(), candidate_models["chosen"]
    policy = Policy.read(lending.policy_file)
    learner = chosen_learner(portfolio, chosen)
    with refusals():
        rows = training_rows(portfolio, lending, chosen.get("continued"), training_set)
    training = candidate_models["training"] | {"continued": chosen.get("continued")}
    data_digest = recorded_digest(context.instance, dg.AssetKey([*context.asset_key.path[:-1], "training_set"]))
    provenance: dict[str, Any] = {
        "portfolio": lending.name,
        "training_set_sha256": data_digest,
        "training_rows": len(rows.learned),
        "kind": TITLES[learner.kind],
        "margin": learner.margin,
        "library": learner.library(),
        "python": platform.python_version(),
        "lock": lock_digest(),
        "seed": learner.seed,
        "parameters": chosen["settings"],
        "learner": chosen["kind"],
        "chosen_because": candidate_models["reason"],
        "training": training,
    }
    context.log.info(f"fitting on {len(rows.fit)} applications: 5 folds for the calibrator, then the final model")
    with training_run(context, mlflow) as tracking:
        tracking.log_params({**provenance["parameters"], "learner": learner.kind, "training_rows": len(rows.learned)})
        tracking.set_tags({"portfolio": lending.name, "training_set_sha256": data_digest})
        with refusals():
            fitted = fit_scoring_model(
                lending.features,
                matrix_of(lending, rows.fit),
                labels_of(rows.fit),
                rows.fit["customer_id"].to_numpy(),
                learner,
                approve_at=policy.approve_at,
                provenance=provenance,
                known=matrix_of(lending, rows.known),
            )
        digest, library, learned_from = store_model(portfolio, fitted, rows.learned)
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
        "learned_from": learned_from,
        "mlflow_run_id": run_id,
        "mlflow_version": version,
        "provenance": fitted.scoring_model.provenance,
        "training": {
            **training,
            "rows": len(rows.fit),
            "calibrated_on": fitted.calibrated_on,
            "effect": _effect(lending, policy, learner, rows.fit),
        },
    }


def _effect(
    lending: Portfolio, policy: Policy, learner: "TreeLearner", training_set: pd.DataFrame
) -> dict[str, Any] | None:
    """What the options of training do to this challenger; None where they are off."""
    from cde_domain.training.challenger import folds_of
    from cde_domain.training.effects import effect_of
    from cde_domain.training.options import TreatedLearner

    if not isinstance(learner, TreatedLearner):
        return None
    matrix, repaid = matrix_of(lending, training_set), labels_of(training_set)
    fold = folds_of(repaid, training_set["customer_id"].to_numpy(), seed=learner.seed)
    return effect_of(learner.options, learner.learner, lending.features, matrix, repaid, fold, policy)


def store_model(
    portfolio: PortfolioResource, fitted: "FittedModel", learned: pd.DataFrame
) -> tuple[str, dict[str, str], dict[str, str]]:
    """
    Keep a model twice, in the form that is served and in its library's own, and the list of what it learned from.

    Returns its digest, and name and SHA-256 of the library's file and of the list.
    """
    library_model = fitted.library_model
    portfolio.models.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=portfolio.models))
    try:
        digest = fitted.scoring_model.save(staging / "served")
        unnamed = staging / f"model{library_model.suffix}"
        library_model.save(unnamed)
        library = _by_digest("library", unnamed)
        listed = staging / "learned_from.parquet"
        learned.to_parquet(listed, index=False)
        learned_from = _by_digest("learned_from", listed)
        folder = portfolio.models / digest
        for name in ("library", "learned_from"):
            folder.joinpath(name).mkdir(parents=True, exist_ok=True)
        if (folder / "served").exists() and model_digest(folder / "served") != digest:
            shutil.rmtree(folder / "served")  # damaged since it was written
        if not (folder / "served").exists():
            (staging / "served").rename(folder / "served")
        unnamed.rename(folder / library["file"])
        listed.rename(folder / learned_from["file"])
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return digest, library, learned_from


def _by_digest(folder: str, path: Path) -> dict[str, str]:
    # Named by its digest, because skops writes the time into its files: two of one model are not the same bytes.
    sha256 = file_digest(path)
    return {"file": f"{folder}/{sha256}{path.suffix}", "sha256": sha256}
