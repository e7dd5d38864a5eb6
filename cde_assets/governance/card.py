"""The model card: one page that says what the model is for, how good it is, and where to be careful."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from cde_assets.metadata import OWNERS, png_base64
from cde_domain.decisions.policy import Policy
from cde_domain.governance.card import FILES, REPORTS, Picture, book_facts, card_facts, render, standing
from cde_resources.portfolio import PortfolioResource

GROUP = "governance"
TEMPLATES = Path(str(files("cde_assets.governance")))


@dg.asset(
    group_name=GROUP, owners=OWNERS, kinds={"markdown", "html", "json"}, ins={name: dg.AssetIn() for name in REPORTS}
)
def model_card(
    context: dg.AssetExecutionContext, portfolio: PortfolioResource, loan_book: pd.DataFrame, **reports: dict[str, Any]
) -> dict[str, Any]:
    """The card of the challenger, every number of it read from the reports (Mitchell et al. 2019)."""
    lending = portfolio.load()
    facts = card_facts(lending, Policy.read(lending.policy_file), book_facts(loan_book), reports)
    pictures = card_pictures(facts)
    card = render(facts, pictures, TEMPLATES)
    digest = reports["challenger_model"]["digest"]
    folder = portfolio.models / digest
    for name, content in card.files().items():
        (folder / name).write_bytes(content)
    page = folder / FILES["html"]
    unsettled = standing(facts["compliance_report"]["rules"])
    context.add_output_metadata(
        {
            "numbers": len(card.data["numbers"]),
            "insufficient_data": len(unsettled["insufficient_data"]),
            "open": len(unsettled["open"]),
            "card": dg.MetadataValue.md(card.markdown),
            "page": portfolio.page_link(page),
            "file": dg.MetadataValue.path(str(page)),
        }
    )
    return {
        "model_digest": digest,
        "portfolio_code": portfolio.code_digest(),
        "markdown": card.markdown,
        "html": card.html,
        "data": card.data,
        "pictures": {name: {"title": picture.title, "uri": picture.uri} for name, picture in pictures.items()},
    }


def card_pictures(facts: Mapping[str, Any]) -> dict[str, Picture]:
    """The pictures of the HTML form, drawn from the same facts that stand beside them as numbers."""
    from cde_assets import pictures

    fairness, evaluation = facts["fairness_report"], facts["evaluation"]
    groups = [group for result in fairness["attributes"] for group in result["groups"]]
    figures = {
        "calibration": ("Repayment rate by score", pictures.calibration_of(evaluation["calibration"]["bins"])),
        "score_bands": ("Share not repaid by score band", pictures.score_bands(evaluation["credit_policy"]["bands"])),
    }
    if any(group["impact_ratio"] is not None for group in groups):
        shown = pictures.impact_ratios(groups, fairness["min_ratio"])
        figures["impact_ratios"] = ("Approval of each group relative to its reference group", shown)
    return {
        name: Picture(title, f"data:image/png;base64,{png_base64(figure, dpi=100)}")
        for name, (title, figure) in figures.items()
    }
