"""The card of a real model: three forms that say the same, and a check that a changed number does not pass."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cde_assets.governance.card import TEMPLATES
from cde_checks.governance import card_agrees_with_the_evidence
from cde_domain.decisions.policy import Policy
from cde_domain.governance.card import FILES, REPORTS, REQUIRED, Picture, book_facts, card_facts, render
from cde_domain.portfolio import load_portfolio
from cde_resources.portfolio import PortfolioResource

NAME = "german_credit"


@pytest.fixture(scope="module")
def reports(german_as_promoted: Path) -> dict[str, Any]:
    """What the card was made from, and the card."""
    folder = german_as_promoted / "artefacts" / NAME
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in (*REPORTS, "model_card")}


@pytest.fixture(scope="module")
def book(german_as_promoted: Path) -> pd.DataFrame:
    """The loan book."""
    return pd.read_parquet(german_as_promoted / "artefacts" / NAME / "loan_book.parquet")


@pytest.fixture
def check(german_as_promoted: Path, book: pd.DataFrame) -> Callable[..., Any]:
    """Ask whether a card agrees with reports."""
    portfolio = PortfolioResource(reference=NAME, state=str(german_as_promoted))
    return lambda **given: card_agrees_with_the_evidence(portfolio=portfolio, loan_book=book, **given)


def test_the_card_agrees_and_lies_in_three_forms_beside_its_model(
    german_as_promoted: Path, reports: dict[str, Any], check: Callable[..., Any]
) -> None:
    result = check(**reports)
    assert (result.passed, result.description) == (True, None)
    card = reports["model_card"]
    folder = german_as_promoted / NAME / "models" / card["model_digest"]
    assert (folder / FILES["markdown"]).read_text(encoding="utf-8") == card["markdown"]
    assert (folder / FILES["html"]).read_text(encoding="utf-8") == card["html"]
    assert json.loads((folder / FILES["data"]).read_text(encoding="utf-8")) == card["data"]


def _another_digit(text: str, place: int) -> str:
    digits = [found.start() for found in re.finditer(r"(?<=\d\.)\d", text)]
    at = digits[place % len(digits)]
    return f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}"


@pytest.mark.parametrize("form", ["markdown", "html"])
@pytest.mark.parametrize("place", [0, 11, 97, 201, -1])
def test_one_changed_digit_in_a_form_is_found(
    reports: dict[str, Any], check: Callable[..., Any], form: str, place: int
) -> None:
    card = reports["model_card"]
    result = check(**reports | {"model_card": card | {form: _another_digit(card[form], place)}})
    assert not result.passed
    assert f"{form} line " in result.description


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (("quantitative_analyses", "holdout", "auc"), "data/quantitative_analyses/holdout/auc"),
        (
            ("fairness", "attributes", 0, "groups", 0, "impact_ratio"),
            "data/fairness/attributes/0/groups/0/impact_ratio",
        ),
        (("calibration", "bins", 3, "rows"), "data/calibration/bins/3/rows"),
    ],
)
def test_one_changed_number_in_the_data_is_found(
    reports: dict[str, Any], check: Callable[..., Any], path: tuple[str | int, ...], told: str
) -> None:
    card = json.loads(json.dumps(reports["model_card"]))
    part = card["data"]
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] += 1
    result = check(**reports | {"model_card": card})
    assert not result.passed
    assert f"{told} is not what the reports say" in result.description


def test_a_number_is_held_against_the_value_that_it_names_as_its_source(
    reports: dict[str, Any], check: Callable[..., Any]
) -> None:
    card = json.loads(json.dumps(reports["model_card"]))
    entry = next(each for each in card["data"]["numbers"] if each["source"] == "/evaluation/holdout/auc")
    entry["printed"] = "0.999"
    result = check(**reports | {"model_card": card})
    assert "0.999 is not /evaluation/holdout/auc" in result.description


def test_a_card_of_another_report_is_refused(reports: dict[str, Any], check: Callable[..., Any]) -> None:
    other = reports["fairness_report"] | {"model_digest": "0" * 64}
    assert "fairness_report is about another model" in check(**reports | {"fairness_report": other}).description


def test_the_card_has_every_section_with_intervals_and_the_benchmarks(reports: dict[str, Any]) -> None:
    card = reports["model_card"]["markdown"]
    for heading in REQUIRED:
        assert f"\n## {heading}\n" in card
    low, high = reports["evaluation"]["holdout"]["auc_interval"]
    assert f"({low:.3f} to {high:.3f})" in card
    for benchmark in ("scorecard", "logistic_regression"):
        difference = reports["evaluation"]["benchmarks"]["differences"][benchmark]
        assert f"{difference['mean']:+.3f}".replace("-", "\u2212") in card


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and value]


def _parsed(html: str) -> _Page:
    page = _Page()
    page.feed(html)
    return page


def test_the_page_is_one_file_with_its_pictures_inside(reports: dict[str, Any]) -> None:
    page = _parsed(reports["model_card"]["html"])
    assert page.tags.count("img") == 3
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.outside)
    assert not {"script", "link", "iframe"} & set(page.tags)


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> | [x](javascript:alert(1))"


def test_no_text_of_a_portfolio_or_a_book_becomes_markup(reports: dict[str, Any], book: pd.DataFrame) -> None:
    lending = load_portfolio(NAME)
    made = card_facts(
        lending, Policy.read(lending.policy_file), book_facts(book), {name: reports[name] for name in REPORTS}
    )
    texts = ("title", "description", "intended_use")
    made["portfolio"] |= dict.fromkeys(texts, HOSTILE)
    for name in ("limits", "out_of_scope", "ethical_considerations", "recommendations", "references"):
        made["portfolio"][name] = [HOSTILE]
    for group in made["fairness_report"]["attributes"][0]["groups"]:
        group["group"] = HOSTILE if group["verdict"] == "reference" else group["group"]
    made["compliance_report"]["rules"][0]["plain"] = HOSTILE
    card = render(made, {"calibration": Picture("Calibration", "data:image/png;base64,AA==")}, TEMPLATES)
    page = _parsed(card.html)
    assert page.tags.count("img") == 1
    assert "script" not in page.tags
    assert not [address for address in page.outside if "javascript" in address]
    assert "<title>Model card: &lt;script&gt;" in card.html
    assert card.html.count("&lt;script&gt;") >= 10
    assert not re.search(r"(?<!\\)<script", card.markdown)
