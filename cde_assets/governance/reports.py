"""The explanation report."""

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from cde_assets.metadata import OWNERS, picture, table
from cde_checks.governance import MIN_OVERLAP, MIN_OVERLAP_OF_BASELINES
from cde_domain.application import columns_of, request_of
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.policy import Policy
from cde_domain.decisions.recourse import find_recourse
from cde_domain.features.table import applied_on, matrix_of
from cde_domain.governance.explanations import explanation_facts
from cde_domain.governance.fairness import SMALL_BOOK
from cde_domain.governance.notices import Notices
from cde_domain.governance.recourse_audit import recourse_facts
from cde_domain.governance.stability import rank_correlations
from cde_domain.portfolio import Portfolio
from cde_resources.portfolio import PortfolioResource

GROUP = "governance"

RECOURSE_SAMPLE = 200
LIME_SAMPLE = 50


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"json"})
def explanation_report(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    challenger_model: dict[str, Any],
    loan_book: pd.DataFrame,
    training_set: pd.DataFrame,
    holdout_set: pd.DataFrame,
) -> dict[str, Any]:
    """
    What drives the challenger, whether its reasons are exact, true and stable, and what would change a rejection.

    Reasons are measured on up to 500 applications of the hold-out that the model did not approve; below 5,000 labelled
    applications, of the whole book. Recourse is searched for up to 200 of them that were rejected.
    """
    lending = portfolio.load()
    model = portfolio.scoring_model(challenger_model["digest"])
    engine = DecisionEngine(lending, model, Policy.read(lending.policy_file))
    training, holdout = matrix_of(lending, training_set), matrix_of(lending, holdout_set)
    small = len(training_set) + len(holdout_set) < SMALL_BOOK
    judged = pd.concat([holdout_set, training_set], ignore_index=True) if small else holdout_set
    notices = Notices.of(engine, matrix_of(lending, judged))
    facts = explanation_facts(engine, holdout, training, notices)
    declined = judged["application_id"].to_numpy()[notices.rows[notices.rejected][:RECOURSE_SAMPLE]]
    report = {
        "model_digest": challenger_model["digest"],
        "portfolio_code": portfolio.code_digest(),
        "measured_on": "whole_book" if small else "holdout",
        "reason_baseline": dict(zip(model.feature_names, np.array(model.reason_baseline).tolist(), strict=True)),
        **facts,
        "recourse": {
            **recourse_facts(engine, _applications(lending, loan_book, declined)),
            "example": _example(lending, engine, portfolio.now().date()),
        },
        "lime": _lime(engine, training, notices),
    }
    _show(context, engine, holdout, report)
    return report


def _applications(
    lending: Portfolio, book: pd.DataFrame, application_ids: NDArray[Any]
) -> Iterator[tuple[BaseModel, date]]:
    """The validated applications of some rows of the book, with their dates."""
    specs = columns_of(lending.application)
    rows = book.set_index("application_id").loc[application_ids]
    for row in rows.to_dict("records"):
        yield lending.application.model_validate_json(json.dumps(request_of(row, specs))), applied_on(row)


def _example(lending: Portfolio, engine: DecisionEngine, today: date) -> list[str]:
    """What the portfolio's made-up applicant would be told; nothing if they are approved."""
    application = lending.application.model_validate_json(json.dumps(dict(lending.example), default=str))
    found = find_recourse(engine, application, today)
    return [change.sentence for change in found.changes] if found else []


def _lime(engine: DecisionEngine, training: NDArray[np.float64], notices: Notices) -> dict[str, Any]:
    from cde_domain.training.lime_comparison import lime_facts, lime_weights

    rows = np.argsort(~notices.rejected, kind="stable")[:LIME_SAMPLE]  # the rejected first
    if not len(rows):
        return {"rows": 0}
    weights = lime_weights(engine.portfolio.features, engine.model.trees.margins, training, notices.matrix[rows])
    return lime_facts(weights, notices.contributions[rows], rank_correlations)


def _show(
    context: dg.AssetExecutionContext, engine: DecisionEngine, holdout: NDArray[np.float64], report: dict[str, Any]
) -> None:
    from cde_assets import pictures  # matplotlib takes a second to import

    _, contributions = engine.model.trees.explain(holdout)
    summary = pictures.contribution_summary(engine.model.feature_names, contributions, holdout)
    recourse = report["recourse"]
    shown = {
        "strongest": report["importance"][0]["feature"],
        "additivity_error": report["additivity_error"],
        "rejected": report["rejected"],
        "notices": report["notices"]["rows"],
        "declined_with_recourse": f"{recourse['with_recourse']} of {recourse['declined']}",
        "importance": table(report["importance"]),
        "summary": picture(summary, "SHAP summary"),
    }
    if report["notices"]["rows"]:
        figure = pictures.overlap_of_reasons(
            [
                (label, measured["top4_jaccard"], least)
                for label, measured, least in (
                    ("numbers move by 1 %", report["stability"]["noise"], MIN_OVERLAP),
                    ("others had just passed", report["stability"]["baselines"], MIN_OVERLAP),
                    ("against all applicants", report["baselines"], MIN_OVERLAP_OF_BASELINES),
                )
            ]
        )
        shown["stability"] = picture(figure, "Stability of the reasons")
    context.add_output_metadata(shown)
