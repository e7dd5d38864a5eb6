"""The candidates for the challenger, compared on the same folds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from cde_assets.metadata import OWNERS, picture, table
from cde_assets.model.continuation import champion_to_continue, refusals, training_rows
from cde_assets.model.training_config import TrainingConfig
from cde_domain.features.table import labels_of, matrix_of
from cde_resources.artefacts import recorded_digest
from cde_resources.mlflow import MlflowResource, training_run
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource

if TYPE_CHECKING:  # scikit-learn and XGBoost take seconds to import
    from cde_domain.training.candidates.comparison import Comparison
    from cde_domain.training.options import TrainingOptions

GROUP = "model"


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"scikitlearn", "xgboost", "mlflow"})
def candidate_models(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    portfolio: PortfolioResource,
    registry: MlflowResource,
    releases: ReleasesResource,
    mlflow: dg.ResourceParam[Any],
    training_set: pd.DataFrame,
) -> dict[str, Any]:
    """
    Monotone trees of three kinds, their soft vote, a points scorecard and logistic regression, on the same folds.

    The best that compiles becomes the challenger; the scorecard and the regression set the benchmark. In mode
    `incremental` the champion with more rounds is the only candidate beside the benchmarks.
    """
    from cde_assets import pictures
    from cde_domain.training.candidates.descriptions import describe
    from cde_domain.training.candidates.final import final_facts

    lending = portfolio.load()
    with refusals():
        compared = _compare(config, context, portfolio, releases, training_set)
    comparison, repaid = compared.comparison, labels_of(compared.rows)
    entries = [comparison.entry(candidate) for candidate in comparison.candidates]
    for candidate, entry in zip(comparison.candidates, entries, strict=True):
        if candidate.learner is not None:
            rows = compared.rows if entry["promotable"] else compared.rows_of_benchmarks
            learned = matrix_of(lending, rows), labels_of(rows)
            entry |= final_facts(candidate.learner, lending.features, *learned)
    data_digest = recorded_digest(context.instance, dg.AssetKey([*context.asset_key.path[:-1], "training_set"]))
    with training_run(context, mlflow) as tracking:
        parent = tracking.active_run().info.run_id
        for candidate, entry in zip(comparison.candidates, entries, strict=True):
            entry["mlflow_run_id"] = registry.record_nested_run(
                parent,
                entry["name"],
                parameters=entry["parameters"],
                metrics={name: value for name, value in entry.items() if isinstance(value, float)},
                tags={"portfolio": lending.name, "training_set_sha256": data_digest, "chosen": str(entry["chosen"])},
                figures={"roc.png": pictures.roc_curve(repaid, candidate.scores)},
                tables={"importance.json": entry.get("importance", []), "folds.json": candidate.as_json()},
            )
    scores = {entry["title"]: found.scores for entry, found in zip(entries, comparison.candidates, strict=True)}
    scorecard = next(entry for entry in entries if entry["name"] == "scorecard")
    context.add_output_metadata(
        {
            "chosen": comparison.chosen.kind,
            "reason": comparison.reason,
            "mode": config.mode,
            "options": compared.options.named,
            "best_auc": float(comparison.chosen.auc.mean()),
            **{f"{found.kind}_auc": float(found.auc.mean()) for found in comparison.benchmarks},
            "mlflow_run": dg.MetadataValue.url(registry.run_url(parent)),
            "candidates": table([_row(entry) for entry in entries]),
            "roc": picture(pictures.roc_curves(repaid, scores), "ROC of the candidates"),
            "points": table(scorecard["points"]),
        }
    )
    return {
        "rows": len(compared.rows),
        "folds": len(comparison.chosen.auc),
        "training_set_sha256": data_digest,
        "tuning_budget": lending.tuning_budget,
        "rule": comparison.rule,
        "training": {"mode": config.mode, "options": config.options()},
        "chosen": describe(comparison.chosen.learner),
        "reason": comparison.reason,
        "candidates": entries,
        "tried": comparison.settings_tried,
    }


@dataclass(frozen=True)
class _Compared:
    """The comparison, the rows it was made on, and those that the benchmarks learn from in the end."""

    comparison: "Comparison"
    rows: pd.DataFrame
    rows_of_benchmarks: pd.DataFrame
    options: "TrainingOptions"


def _compare(
    config: TrainingConfig,
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    training_set: pd.DataFrame,
) -> _Compared:
    from cde_domain.training.candidates.comparison import compare_candidates, compare_continuation
    from cde_domain.training.options import TrainingOptionError, TrainingOptions

    lending, options = portfolio.load(), TrainingOptions(**config.options())
    if config.mode == "full":
        comparison = compare_candidates(
            lending.features,
            matrix_of(lending, training_set),
            labels_of(training_set),
            training_set["customer_id"].to_numpy(),
            boosting=lending.boosting,
            budget=lending.tuning_budget,
            max_decision_ms=lending.thresholds.max_decision_ms,
            options=options,
            tell=context.log.info,
        )
        return _Compared(comparison, training_set, training_set, options)
    if not options.are_off:
        raise TrainingOptionError(
            f"{options.named} cannot be set in mode incremental, because the champion's trees were grown without: "
            "leave the option out, or train in mode full"
        )
    learner = champion_to_continue(releases, portfolio, config.added_rounds)
    rows = training_rows(portfolio, lending, dict(learner.origin), training_set)
    comparison = compare_continuation(
        learner,
        lending.features,
        (matrix_of(lending, rows.fit), labels_of(rows.fit)),
        rows.fit["customer_id"].to_numpy(),
        (matrix_of(lending, rows.known), labels_of(rows.known)),
    )
    return _Compared(comparison, rows.fit, pd.concat([rows.known, rows.fit]), options)


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    def difference(benchmark: str) -> str:
        found = entry["against"].get(benchmark)
        return f"{found['mean']:+.4f} ± {found['standard_error']:.4f}" if found else ""

    return {
        "candidate": entry["title"],
        "chosen": "yes" if entry["chosen"] else "",
        "can be served": "yes" if entry["promotable"] else "",
        "AUC": f"{entry['auc_mean']:.4f} ± {entry['auc_sd']:.4f}",
        "Brier": f"{entry['brier_mean']:.5f} ± {entry['brier_sd']:.5f}",
        "log loss": f"{entry['log_loss_mean']:.4f} ± {entry['log_loss_sd']:.4f}",
        "AUC less the scorecard's": difference("scorecard"),
        "AUC less logistic regression's": difference("logistic_regression"),
        "explanation, us": entry.get("explanation_us"),
        "megabytes": entry.get("served_megabytes"),
    }
