"""The model card in three forms from one template: Markdown, HTML and JSON (Mitchell et al. 2019).

The facts of a card are reports of assets and what the portfolio says of itself. Nothing is computed while it is
rendered: `Prints` refuses a number that stands in no fact.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cde_domain.decisions.policy import Policy
from cde_domain.digests import json_bytes
from cde_domain.governance.facts import METRICS
from cde_domain.governance.traced import FILTERS, Prints, Verbatim, traced
from cde_domain.portfolio import Portfolio

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, SCHEMA_VERSION = "model-card", 1
TEMPLATE, PAGE, STYLE = "model_card.md.jinja", "card/page.html.jinja", "card/card.css"
FORMS = ("markdown", "html", "data")
FILES = {"markdown": "model_card.md", "html": "model_card.html", "data": "model_card.json"}

OF_A_MODEL = (  # reports that bear the digest of the one model they are about
    "challenger_model",
    "evaluation",
    "fairness_report",
    "alternatives_search",
    "explanation_report",
    "latency_report",
    "compliance_report",
)
REPORTS = ("candidate_models", *OF_A_MODEL)
# The names under which templates know the reports.
ALIASES = {
    "candidates": "candidate_models",
    "challenger": "challenger_model",
    "fairness": "fairness_report",
    "alternatives": "alternatives_search",
    "explanations": "explanation_report",
    "latency": "latency_report",
    "compliance": "compliance_report",
}
# Sections that a card must have, by their heading, and where their content comes from.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "Model details": ("challenger_model", "digest"),
    "Intended use": ("portfolio", "intended_use"),
    "Out of scope": ("portfolio", "out_of_scope"),
    "Factors": ("portfolio", "features"),
    "Metrics": ("portfolio", "thresholds"),
    "Evaluation data": ("evaluation", "holdout", "rows"),
    "Training data": ("challenger_model", "provenance", "training_rows"),
    "Quantitative analyses": ("evaluation", "cross_validation"),
    "Fairness": ("fairness_report", "rows"),
    "Calibration": ("evaluation", "calibration", "bins"),
    "Ethical considerations": ("portfolio", "ethical_considerations"),
    "Limits": ("portfolio", "limits"),
    "Recommendations": ("portfolio", "recommendations"),
    "Compliance": ("compliance_report", "rules"),
    "Reviewers": ("compliance_report", "reviewers"),
}


_BEFORE_PERCENT = re.compile(r"(?<=\d) %")


@dataclass(frozen=True)
class Picture:
    """A picture on the HTML form: what it shows, and its bytes as a data URI."""

    title: str
    uri: str


@dataclass(frozen=True)
class ModelCard:
    """
    The three forms of a card.

    `data` holds the facts by section, and under `numbers` every printed number with its source: a JSON pointer into the
    reports, the portfolio (`/portfolio`), the policy and the book.
    """

    markdown: str
    html: str
    data: dict[str, Any]

    def files(self) -> dict[str, bytes]:
        """The files of the card by name."""
        contents = (self.markdown.encode(), self.html.encode(), json_bytes(self.data))
        return dict(zip(FILES.values(), contents, strict=True))


def card_facts(
    lending: Portfolio, policy: Policy, book: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything that may stand on a card, as JSON: the reports by asset, the portfolio, its policy and its book."""
    facts = {
        "portfolio": portfolio_facts(lending),
        "policy": policy.model_dump(mode="json"),
        "book": dict(book),
        "metrics": dict(METRICS),
        **reports,
    }
    plain: dict[str, Any] = json.loads(json_bytes(facts))
    return plain


def book_facts(book: "pd.DataFrame") -> dict[str, Any]:
    """What the card says of the loan book: rows, known outcomes, the share repaid, first and last application."""
    applied, repaid = book["applied_at"].dropna(), book["repaid"].dropna()
    return {
        "rows": len(book),
        "labelled": len(repaid),
        "repaid": float(repaid.mean()) if len(repaid) else None,
        "first_application": f"{applied.min():%Y-%m-%d}" if len(applied) else None,
        "last_application": f"{applied.max():%Y-%m-%d}" if len(applied) else None,
    }


def portfolio_facts(lending: Portfolio) -> dict[str, Any]:
    """What a portfolio says of itself."""
    stated = (
        "name",
        "title",
        "description",
        "jurisdiction",
        "promotion",
        "intended_use",
        "out_of_scope",
        "ethical_considerations",
        "limits",
        "recommendations",
        "references",
    )
    inventory = lending.inventory
    return {
        **{name: getattr(lending, name) for name in stated},
        "outcome": {
            "column": lending.outcome.column,
            "good": str(lending.outcome.good),
            "matures_after_days": lending.outcome.matures_after_days,
        },
        "economics": {**asdict(lending.economics), "break_even": lending.economics.break_even},
        "thresholds": asdict(lending.thresholds),
        "creditor": asdict(lending.creditor),
        "inventory": inventory and {**asdict(inventory), "tier_reviewed_on": inventory.tier_reviewed_on.isoformat()},
        "features": [
            {
                "name": feature.name,
                "description": feature.description,
                "unit": feature.unit,
                "monotone": feature.monotone,
            }
            for feature in lending.features
        ],
        "protected": [
            {"name": attribute.name, "use": attribute.use, "why": attribute.why} for attribute in lending.protected
        ],
    }


def empty_sections(facts: Mapping[str, Any], *, before: tuple[str, ...] = ()) -> list[str]:
    """Required sections that nothing is known for; those made of the reports in `before` are still to come."""
    empty = []
    for heading, path in REQUIRED.items():
        if path[0] in before:
            continue
        value: Any = facts
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if not (value.strip() if isinstance(value, str) else value):
            empty.append(heading)
    return empty


def empty_headings(markdown: str) -> list[str]:
    """Required sections that are not in a card's Markdown, or have nothing under their heading."""
    parts = {part.partition("\n")[0].strip(): part.partition("\n")[2] for part in f"\n{markdown}".split("\n## ")[1:]}
    return [heading for heading in REQUIRED if not parts.get(heading, "").strip()]


def sections(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts by section of the card; a report that belongs to none stands under its asset's name."""
    lending, challenger, evaluation = facts["portfolio"], facts["challenger_model"], facts["evaluation"]
    compliance = facts["compliance_report"]
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "banner": standing(compliance["rules"]),
        "model_details": {
            **{name: lending[name] for name in ("name", "title", "description", "references", "creditor", "inventory")},
            **{name: challenger[name] for name in ("digest", "library", "mlflow_run_id", "mlflow_version")},
            "provenance": challenger["provenance"],
            "policy": facts["policy"],
            "latency": facts["latency_report"],
        },
        "intended_use": lending["intended_use"],
        "out_of_scope": lending["out_of_scope"],
        "factors": {"features": lending["features"], "protected": lending["protected"]},
        "metrics": {"thresholds": lending["thresholds"], "economics": lending["economics"]},
        "evaluation_data": {
            "holdout_rows": evaluation["holdout"]["rows"],
            "cross_validated_rows": evaluation["cross_validation"]["rows"],
            "policy_measured_on": evaluation["credit_policy"]["measured_on"],
            "fairness_measured_on": facts["fairness_report"]["measured_on"],
        },
        "training_data": {
            **facts["book"],
            "outcome": lending["outcome"],
            "training_rows": challenger["provenance"]["training_rows"],
            "training_set_sha256": challenger["provenance"]["training_set_sha256"],
        },
        "quantitative_analyses": {
            **{name: evaluation[name] for name in ("holdout", "cross_validation", "champion", "quarters", "decisions")},
            "credit_policy": evaluation["credit_policy"],
            "candidates": facts["candidate_models"],
            "explanations": facts["explanation_report"],
        },
        "fairness": facts["fairness_report"],
        "alternatives": facts["alternatives_search"],
        "calibration": evaluation["calibration"],
        **{name: lending[name] for name in ("ethical_considerations", "limits", "recommendations")},
        "compliance": {name: value for name, value in compliance.items() if name != "reviewers"},
        "reviewers": compliance["reviewers"],
        **{name: report for name, report in facts.items() if name not in {*REPORTS, *_OWN}},
    }


_OWN = ("portfolio", "policy", "book", "metrics")


def standing(rules: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The rules that are no pass, by what stands against them."""
    named: dict[str, list[str]] = {
        name: [rule["id"] for rule in rules if rule["status"] == status]
        for name, status in (("failed", "fail"), ("warnings", "warn"), ("insufficient_data", "insufficient_data"))
    }
    waiting = [rule for rule in rules if rule["status"] == "not_yet_measured"]
    return named | {
        "open": [rule["id"] for rule in waiting if rule["phase"] == "promotion"],
        "not_yet_in_operation": [rule["id"] for rule in waiting if rule["phase"] == "operation"],
    }


def render(facts: Mapping[str, Any], pictures: Mapping[str, Picture], templates: Path) -> ModelCard:
    """
    The card of some facts, by the templates in a folder.

    Raises:
        UntracedNumberError: a template prints a number that was read from no fact.
    """
    prints = Prints()
    markdown = _markdown(facts, {}, templates, prints)
    page = _markdown(facts, pictures, templates, Prints())
    numbers = [{"printed": text, "source": source} for text, source in dict.fromkeys(prints.numbers)]
    return ModelCard(markdown, _page(facts, page, templates), {**sections(facts), "numbers": numbers})


def _markdown(facts: Mapping[str, Any], pictures: Mapping[str, Picture], templates: Path, prints: Prints) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        finalize=prints,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  # Markdown, escaped by `prints`
    )
    environment.filters.update(FILTERS)

    def picture(name: str) -> Verbatim:
        shown = pictures.get(name)
        return Verbatim(f"![{shown.title}]({shown.uri})\n" if shown else "")

    known = traced(facts)
    evaluation = known["evaluation"]
    return environment.get_template(TEMPLATE).render(
        known,
        **{alias: known[name] for alias, name in ALIASES.items()},
        provenance=known["challenger_model"]["provenance"],
        holdout=evaluation["holdout"],
        cross_validation=evaluation["cross_validation"],
        decisions=evaluation["decisions"],
        credit=evaluation["credit_policy"],
        picture=picture,
    )


def _page(facts: Mapping[str, Any], markdown: str, templates: Path) -> str:
    """One self-contained HTML file; raw HTML in the Markdown is shown as text."""
    import jinja2
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "typographer": False}).enable("table")
    tokens = parser.parse(_BEFORE_PERCENT.sub("\u00a0%", markdown))
    contents = []
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            anchor = "-".join(inline.content.lower().split())
            token.attrSet("id", anchor)
            contents.append({"anchor": anchor, "heading": inline.content})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates), undefined=jinja2.StrictUndefined, autoescape=True
    )
    return environment.get_template(PAGE).render(
        title=facts["portfolio"]["title"],
        contents=contents,
        body=parser.renderer.render(tokens, parser.options, {}),
        style=(templates / STYLE).read_text(encoding="utf-8"),
    )
