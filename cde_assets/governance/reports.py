"""The fairness report and the explanation report."""

from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from cde_assets.metadata import OWNERS, picture, table
from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.features.table import matrix_of
from cde_domain.governance.explanations import explanation_facts
from cde_domain.governance.fairness import SMALL_BOOK, adverse_impact
from cde_domain.loan_book import PROTECTED_PREFIX
from cde_resources.portfolio import PortfolioResource

GROUP = "governance"


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"json"})
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
    Approval by protected group under the policy, with a verdict only where the group is large enough for one.

    Measured on the hold-out; below 5,000 labelled applications on out-of-fold scores of the whole book.
    """
    from cde_assets import pictures

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
    book = loan_book.set_index("application_id").loc[rows["application_id"]].reset_index()
    results = [
        adverse_impact(
            book[PROTECTED_PREFIX + attribute.name],
            decisions == Outcome.APPROVED,
            decisions == Outcome.MANUAL_REVIEW,
            attribute=attribute.name,
            use=attribute.use,
            why=attribute.why,
            min_ratio=lending.thresholds.min_adverse_impact_ratio,
        ).as_json()
        for attribute in lending.protected
    ]
    groups = [group for result in results for group in result["groups"]]
    ratios = [group["impact_ratio"] for group in groups if group["impact_ratio"] is not None]
    context.add_output_metadata(
        {
            "measured_on": "out-of-fold scores of the whole book" if small else "the hold-out set",
            **{f"verdict_{result['attribute']}": f"{result['verdict']} ({result['use']})" for result in results},
            **({"smallest_impact_ratio": min(ratios)} if ratios else {}),
            **({"groups": table(groups)} if groups else {}),
        }
    )
    if ratios:
        context.add_output_metadata(
            {
                "impact": picture(
                    pictures.impact_ratios(groups, lending.thresholds.min_adverse_impact_ratio), "impact ratios"
                )
            }
        )
    return {
        "model_digest": challenger_model["digest"],
        "portfolio_code": portfolio.code_digest(),
        "measured_on": "out_of_fold" if small else "holdout",
        "rows": len(rows),
        "min_ratio": lending.thresholds.min_adverse_impact_ratio,
        "attributes": results,
    }


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"json"})
def explanation_report(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    challenger_model: dict[str, Any],
    holdout_set: pd.DataFrame,
) -> dict[str, Any]:
    """What drives the challenger, and whether its explanations are exact and its reasons complete."""
    from cde_assets import pictures

    lending = portfolio.load()
    model = portfolio.scoring_model(challenger_model["digest"])
    engine = DecisionEngine(lending, model, Policy.read(lending.policy_file))
    matrix = matrix_of(lending, holdout_set)
    facts = explanation_facts(engine, matrix)
    _, contributions = model.trees.explain(matrix)
    context.add_output_metadata(
        {
            "strongest": facts["importance"][0]["feature"],
            "additivity_error": facts["additivity_error"],
            "rejected": facts["rejected"],
            "importance": table(facts["importance"]),
            "summary": picture(
                pictures.contribution_summary(model.feature_names, contributions, matrix), "SHAP summary"
            ),
        }
    )
    baseline = dict(zip(model.feature_names, np.array(model.reason_baseline).tolist(), strict=True))
    return {
        "model_digest": challenger_model["digest"],
        "portfolio_code": portfolio.code_digest(),
        "reason_baseline": baseline,
        **facts,
    }
