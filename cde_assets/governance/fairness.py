"""The fairness report."""

from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from cde_assets.metadata import OWNERS, picture, table
from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.features.table import matrix_of
from cde_domain.governance.equal_opportunity import opportunity
from cde_domain.governance.fairness import SMALL_BOOK, adverse_impact, members_of, reference_group
from cde_domain.governance.intersections import intersections
from cde_domain.governance.score_gaps import score_gaps
from cde_domain.loan_book import PROTECTED_PREFIX
from cde_domain.portfolio import Portfolio, ProtectedAttribute
from cde_resources.portfolio import PortfolioResource

GROUP = "governance"


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"json", "xgboost"})
def fairness_report(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    challenger_model: dict[str, Any],
    loan_book: pd.DataFrame,
    feature_table: pd.DataFrame,
    holdout_set: pd.DataFrame,
    out_of_fold_scores: pd.DataFrame,
) -> dict[str, Any]:
    """
    Decisions, scores and errors by protected group, with a verdict only where the group is large enough for one.

    Measured on the three-way decision of the hold-out; below 5,000 labelled applications on out-of-fold scores of the
    whole book. Pairs of attributes and what the features give away of each are in it too.
    """
    lending = portfolio.load()
    policy = Policy.read(lending.policy_file)
    model = portfolio.scoring_model(challenger_model["digest"])
    small = len(out_of_fold_scores) < SMALL_BOOK
    if small:
        rows = feature_table.set_index("application_id", drop=False).loc[out_of_fold_scores["application_id"]]
        matrix, scores = matrix_of(lending, rows), out_of_fold_scores["score"].to_numpy()
    else:
        rows = holdout_set
        matrix = matrix_of(lending, rows)
        scores = model.scores(matrix)
    decisions = decide_all(lending.features, matrix, scores, policy, model)
    repaid = rows["repaid"].to_numpy(dtype=np.float64)
    groups = _protected_groups(lending, loan_book, rows["application_id"])
    min_ratio = lending.thresholds.min_adverse_impact_ratio
    results = [_attribute(attribute, groups, decisions, scores, repaid, min_ratio) for attribute in lending.protected]
    approved, reviewed = decisions == Outcome.APPROVED, decisions == Outcome.MANUAL_REVIEW
    report = {
        "model_digest": challenger_model["digest"],
        "portfolio_code": portfolio.code_digest(),
        "measured_on": "out_of_fold" if small else "holdout",
        "rows": len(rows),
        "min_ratio": min_ratio,
        "approval_rate": float(approved.mean()),
        "attributes": results,
        "intersections": [pair.as_json() for pair in intersections(groups, approved, reviewed, min_ratio=min_ratio)],
        "proxies": _proxies(lending, feature_table, loan_book),
    }
    context.add_output_metadata(_metadata(report))
    return report


def _protected_groups(lending: Portfolio, book: pd.DataFrame, applications: pd.Series) -> dict[str, pd.Series]:
    rows = book.set_index("application_id").loc[applications].reset_index()
    return {attribute.name: rows[PROTECTED_PREFIX + attribute.name] for attribute in lending.protected}


def _attribute(
    attribute: ProtectedAttribute,
    groups: dict[str, pd.Series],
    decisions: np.ndarray,
    scores: np.ndarray,
    repaid: np.ndarray,
    min_ratio: float,
) -> dict[str, Any]:
    own = groups[attribute.name]
    approved, reviewed = decisions == Outcome.APPROVED, decisions == Outcome.MANUAL_REVIEW
    unknown = own.isna().to_numpy()
    impact = adverse_impact(
        own,
        approved,
        reviewed,
        attribute=attribute.name,
        use=attribute.use,
        why=attribute.why,
        min_ratio=min_ratio,
    )
    reference = reference_group(members_of(own), approved)
    return {
        **impact.as_json(),
        "unknown_approval_rate": float(approved[unknown].mean()) if unknown.any() else None,
        "opportunity": opportunity(own, approved, repaid).as_json(),
        "scores": [gap.as_json() for gap in score_gaps(own, scores, repaid, reference=reference)],
    }


def _proxies(lending: Portfolio, features: pd.DataFrame, book: pd.DataFrame) -> list[dict[str, Any]]:
    if not lending.protected:
        return []
    from cde_domain.training.proxies import proxy_screen

    groups = _protected_groups(lending, book, features["application_id"])
    return [result.as_json() for result in proxy_screen(lending.features, matrix_of(lending, features), groups)]


def _metadata(report: dict[str, Any]) -> dict[str, Any]:
    from cde_assets import pictures

    results = report["attributes"]
    groups = [group for result in results for group in result["groups"]]
    ratios = [group["impact_ratio"] for group in groups if group["impact_ratio"] is not None]
    gaps = [gap["difference"] for result in results if (gap := result["opportunity"]["equal_opportunity"])["interval"]]
    areas = [proxy["auc"] for proxy in report["proxies"] if proxy["auc"] is not None]
    cells = [
        {"attributes": " & ".join(pair["attributes"]), **cell}
        for pair in report["intersections"]
        for cell in pair["cells"]
    ]
    gap_rows = [{"attribute": result["attribute"], **row} for result in results for row in result["scores"]]
    rate_rows = [
        {"attribute": result["attribute"], **row} for result in results for row in result["opportunity"]["rates"]
    ]
    measured_on = "out-of-fold scores of the whole book" if report["measured_on"] == "out_of_fold" else "the hold-out"
    metadata: dict[str, Any] = {
        "measured_on": measured_on,
        **{f"verdict_{result['attribute']}": f"{result['verdict']} ({result['use']})" for result in results},
        **{f"unknown_{result['attribute']}": result["unknown_rows"] for result in results if result["unknown_rows"]},
    }
    for name, values, best in (
        ("smallest_impact_ratio", ratios, min),
        ("largest_opportunity_gap", gaps, max),
        ("largest_proxy_auc", areas, max),
    ):
        if values:
            metadata[name] = float(best(values))
    if cells:
        metadata["cells_clearly_below"] = float(sum(cell["clearly_below"] for cell in cells))
    for name, rows in (
        ("groups", groups),
        ("rates", rate_rows),
        ("scores", gap_rows),
        ("intersections", cells),
        ("proxies", report["proxies"]),
    ):
        if rows:
            metadata[name] = table(rows)
    if ratios:
        metadata["impact"] = picture(pictures.impact_ratios(groups, report["min_ratio"]), "impact ratios")
    return metadata
