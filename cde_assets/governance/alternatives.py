"""The search for less discriminatory alternatives."""

from datetime import date
from typing import Any

import dagster as dg
import pandas as pd

from cde_assets.metadata import OWNERS, picture, table
from cde_domain.decisions.policy import Policy
from cde_domain.features.table import labels_of, matrix_of
from cde_domain.governance.alternatives import RULE, Finding, Tolerances
from cde_domain.governance.fairness import SMALL_BOOK
from cde_domain.loan_book import PROTECTED_PREFIX
from cde_domain.portfolio import MIN_ALTERNATIVES, Portfolio
from cde_resources.mlflow import MlflowResource, training_run
from cde_resources.portfolio import PortfolioResource

GROUP = "governance"
NOT_SEARCHED: dict[str, Any] = {
    "n_candidates": 0,
    "candidates": [],
    "groups": [],
    "reported_groups": [],
    "found": [],
    "declined": [],
    "unanswered": [],
}


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"fairlearn", "xgboost", "mlflow"})
def alternatives_search(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    registry: MlflowResource,
    mlflow: dg.ResourceParam[Any],
    candidate_models: dict[str, Any],
    challenger_model: dict[str, Any],
    loan_book: pd.DataFrame,
    feature_table: pd.DataFrame,
    training_set: pd.DataFrame,
) -> dict[str, Any]:
    """
    Models beside the challenger that might treat protected groups more alike, at a loss of accuracy declared before.

    One of them is found, or that there is one is refuted, or the data leave it open. Below 5,000 labelled applications
    the whole book is searched, otherwise the training set, so that the hold-out judges a choice it had no part in.
    """
    lending = portfolio.load()
    small = int(feature_table["repaid"].notna().sum()) < SMALL_BOOK
    report: dict[str, Any] = {
        "model_digest": challenger_model["digest"],
        "portfolio_code": portfolio.code_digest(),
        "rule": RULE,
        "auc_tolerance": lending.thresholds.alternative_auc_tolerance,
        "min_gain": lending.thresholds.alternative_min_gain,
        "min_candidates": MIN_ALTERNATIVES,
        "measured_on": "out_of_fold" if small else "training_set",
    }
    gated = [attribute.name for attribute in lending.protected if attribute.use == "gate"]
    if not gated:
        why = "the portfolio has no protected attribute that gates"
        context.add_output_metadata({"finding": Finding.NOT_APPLICABLE.value, "reason": why})
        return {**report, **NOT_SEARCHED, "finding": Finding.NOT_APPLICABLE.value, "reason": why}
    from cde_domain.training.alternatives.book import Book
    from cde_domain.training.alternatives.search import SearchError, search_alternatives
    from cde_domain.training.candidates.descriptions import learner_of

    rows = feature_table[feature_table["repaid"].notna()].reset_index(drop=True) if small else training_set
    people = loan_book.set_index("application_id").loc[rows["application_id"]].reset_index()
    book = Book(
        lending.features,
        matrix_of(lending, rows),
        labels_of(rows),
        rows["customer_id"].to_numpy(),
        {name: people[PROTECTED_PREFIX + name] for name in gated},
        {one.name: people[PROTECTED_PREFIX + one.name] for one in lending.protected if one.name not in gated},
    )
    try:
        search = search_alternatives(
            book,
            learner_of(candidate_models["chosen"]),
            Policy.read(lending.policy_file),
            boosting=lending.boosting,
            candidates=lending.alternatives,
            tolerances=Tolerances(report["auc_tolerance"], report["min_gain"]),
            tell=context.log.info,
        )
    except SearchError as error:
        context.add_output_metadata({"finding": Finding.INSUFFICIENT_DATA.value, "reason": str(error)})
        return {**report, **NOT_SEARCHED, "finding": Finding.INSUFFICIENT_DATA.value, "reason": str(error)}
    report |= search.as_json()
    report |= _answers(lending, report, portfolio.now().date())
    with training_run(context, mlflow) as tracking:
        report["mlflow_run_id"] = _record(registry, tracking.active_run().info.run_id, lending.name, report)
    context.add_output_metadata(_metadata(report))
    return report


def _answers(lending: Portfolio, report: dict[str, Any], today: date) -> dict[str, Any]:
    """Who declined which of the models found, those nobody did, and the outcome in a sentence."""
    declined = [
        {"candidate": name, "by": f"{one.name}, {one.role}", "on": one.date.isoformat(), "reason": one.reason}
        for one in lending.declined_alternatives
        if one.holds_on(today)
        for name in one.candidates
        if name in report["found"]
    ]
    unanswered = [name for name in report["found"] if name not in {answer["candidate"] for answer in declined}]
    adopt = {candidate["name"]: candidate["adopt"] for candidate in report["candidates"]}
    said = [f"{group['attribute']}={group['group']}: {group['why']}" for group in report["groups"]]
    if report["found"]:
        best = report["found"][0]
        said = [f"{len(report['found'])} models, first {best} ({adopt[best]})"]
    elif report["finding"] == Finding.INSUFFICIENT_DATA:
        still_open = [group for group in report["groups"] if group["finding"] == Finding.INSUFFICIENT_DATA]
        said = [f"{group['attribute']}={group['group']}: {group['why']}" for group in still_open]
    return {"declined": declined, "unanswered": unanswered, "reason": "; ".join(said)}


def _record(registry: MlflowResource, parent: str, name: str, report: dict[str, Any]) -> str:
    """One nested run for the search: every candidate as a table, and the picture."""
    from cde_assets import pictures

    return registry.record_nested_run(
        parent,
        "alternatives_search",
        parameters={key: report[key] for key in ("auc_tolerance", "min_gain", "n_candidates", "rows", "folds")},
        metrics={
            "found": float(len(report["found"])),
            "unanswered": float(len(report["unanswered"])),
            "challenger_auc": report["challenger"]["auc_mean"],
        },
        tags={"portfolio": name, "finding": report["finding"], "model_digest": report["model_digest"]},
        figures={"pareto.png": pictures.alternatives(report)},
        tables={"alternatives.json": report["candidates"], "groups.json": report["groups"]},
    )


def _metadata(report: dict[str, Any]) -> dict[str, Any]:
    from cde_assets import pictures

    rows = [
        {
            "candidate": row["name"],
            "family": row["family"],
            "AUC": row["auc_mean"],
            "AUC less the challenger's": f"{row['auc_difference']['mean']:+.4f} ± "
            f"{row['auc_difference']['standard_error']:.4f}",
            "within tolerance": "yes" if row["within_tolerance"] else "",
            "lowest impact ratio": row["impact_ratio"],
            "at the policy's cut-off": row["impact_ratio_at_policy"],
            "Pareto": "yes" if row["pareto"] else "",
            "helps": ", ".join(row["helps"]),
        }
        for row in report["candidates"]
    ]
    return {
        "finding": report["finding"],
        "reason": report["reason"],
        "candidates_tried": float(report["n_candidates"]),
        "unanswered": ", ".join(report["unanswered"]) or "none",
        "auc_tolerance": report["auc_tolerance"],
        "min_gain": report["min_gain"],
        "groups": table([{key: value for key, value in group.items() if key != "why"} for group in report["groups"]]),
        "candidates": table(rows),
        "pareto": picture(pictures.alternatives(report), "accuracy against fairness"),
    }
