"""The model card: one page that says what the model is for, how good it is, and where to be careful."""

from importlib.resources import files
from typing import Any

import dagster as dg
import pandas as pd

from cde_assets.metadata import OWNERS
from cde_domain.decisions.policy import Policy
from cde_domain.portfolio import Portfolio
from cde_resources.portfolio import PortfolioResource

GROUP = "governance"


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"markdown"})
def model_card(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    candidate_models: dict[str, Any],
    challenger_model: dict[str, Any],
    evaluation: dict[str, Any],
    fairness_report: dict[str, Any],
    explanation_report: dict[str, Any],
    compliance_report: dict[str, Any],
    loan_book: pd.DataFrame,
) -> dict[str, Any]:
    """The card of the challenger, every number of it read from the reports (Mitchell et al. 2019)."""
    lending = portfolio.load()
    book = {"rows": len(loan_book), "labelled": int(loan_book["repaid"].notna().sum())}
    markdown = render_card(
        lending,
        challenger_model,
        candidate_models,
        evaluation,
        fairness_report,
        explanation_report,
        compliance_report,
        book,
    )
    path = portfolio.models / challenger_model["digest"] / "model_card.md"
    path.write_text(markdown, encoding="utf-8")
    context.add_output_metadata({"card": dg.MetadataValue.md(markdown), "file": dg.MetadataValue.path(str(path))})
    return {"model_digest": challenger_model["digest"], "book": book, "markdown": markdown}


def render_card(
    lending: Portfolio,
    challenger: dict[str, Any],
    candidates: dict[str, Any],
    evaluation: dict[str, Any],
    fairness: dict[str, Any],
    explanations: dict[str, Any],
    compliance: dict[str, Any],
    book: dict[str, Any],
) -> str:
    """The card in Markdown."""
    import jinja2

    template = files("cde_assets.governance").joinpath("model_card.md.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cde_assets", "governance"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  # Markdown, from our own numbers
    )
    environment.filters["number"] = _number
    environment.filters["span"] = _span
    environment.filters["words"] = lambda verdict: str(verdict).replace("_", " ")
    environment.filters["percent"] = lambda value: "-" if value is None else f"{100 * value:.1f} %"
    return environment.from_string(template).render(
        portfolio=lending,
        policy=Policy.read(lending.policy_file),
        challenger=challenger,
        provenance=challenger["provenance"],
        candidates=candidates,
        evaluation=evaluation,
        holdout=evaluation["holdout"],
        cross_validation=evaluation["cross_validation"],
        decisions=evaluation["decisions"],
        fairness=fairness,
        explanations=explanations,
        compliance=compliance,
        book=book,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _span(interval: list[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.4f} to {interval[1]:.4f})"
