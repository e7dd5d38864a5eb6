"""The explanation report."""

from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from cde_assets.metadata import OWNERS, picture, table
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.policy import Policy
from cde_domain.features.table import matrix_of
from cde_domain.governance.explanations import explanation_facts
from cde_resources.portfolio import PortfolioResource

GROUP = "governance"


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
