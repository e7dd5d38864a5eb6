"""The card's sections and templates, before any model."""

import dataclasses
import datetime
import re
from pathlib import Path

import jinja2
import pytest

from cde_assets.governance.card import TEMPLATES
from cde_checks.judgement import required_checks
from cde_domain.governance.card import REQUIRED, empty_headings, empty_sections, portfolio_facts, standing
from cde_domain.governance.facts import Fact
from cde_domain.governance.inventory_facts import documentation_facts, inventory_facts
from cde_domain.governance.rulebook import Rulebook
from cde_domain.portfolio import load_portfolio, shipped_portfolios

GERMAN = load_portfolio("german_credit")
TODAY = datetime.date(2026, 12, 1)
# Numbers that are words of the template: definitions, conventions of the text and citations.
SPOKEN = {
    "0.5 is chance, 1 is perfect",
    "95 %",
    "below 1",
    "every 100",
    "under 30",
    "30 to 249",
    "0.5 is a coin, 1 gives",
}
SPOKEN |= {"score of 0.8", "80 of 100", "12 CFR 1002.9(b)(2), comment 5", "(Nadeau and Bengio 2003)", "F1"}


def _templates() -> list[Path]:
    return sorted([*TEMPLATES.glob("*.md.jinja"), *TEMPLATES.glob("card/*.md.jinja")])


@pytest.mark.parametrize("template", _templates(), ids=lambda path: path.name)
def test_no_template_holds_a_measured_number_of_its_own(template: Path) -> None:
    tokens = jinja2.Environment().lex(template.read_text(encoding="utf-8"))
    literal = " ".join(text for _, kind, text in tokens if kind == "data")
    literal = re.sub(r"^#+ ", "", literal, flags=re.MULTILINE)
    for spoken in SPOKEN:
        literal = literal.replace(spoken, "")
    assert re.findall(r"\S*\d\S*", literal) == []


@pytest.mark.parametrize("name", shipped_portfolios())
def test_every_shipped_portfolio_says_what_its_card_must_say(name: str) -> None:
    facts = {"portfolio": portfolio_facts(load_portfolio(name))}
    asked = [heading for heading, path in REQUIRED.items() if path[0] == "portfolio"]
    assert not set(asked) & set(empty_sections(facts))


def test_a_portfolio_that_says_nothing_of_its_limits_leaves_a_section_empty() -> None:
    silent = dataclasses.replace(GERMAN, limits=(), intended_use="  ")
    reports = {"challenger_model": {"digest": "d"}}
    empty, lineage = documentation_facts(silent, reports)
    whole, _ = documentation_facts(GERMAN, reports)
    assert empty.value == whole.value + 2
    assert lineage.value == 7  # all but the digest


def test_a_report_about_another_model_breaks_the_lineage() -> None:
    own, other = ({"challenger_model": {"digest": "d"}, "evaluation": {"model_digest": digest}} for digest in "de")
    assert documentation_facts(GERMAN, other)[1].value == documentation_facts(GERMAN, own)[1].value + 1


def test_an_empty_section_of_a_card_is_named() -> None:
    card = "".join(f"## {heading}\n\nText.\n\n" for heading in REQUIRED)
    assert empty_headings(card) == []
    assert empty_headings(card.replace("## Limits\n\nText.\n", "## Limits\n")) == ["Limits"]
    assert empty_headings(card.replace("## Fairness", "### Fairness")) == ["Fairness"]


def _by_metric(facts: list[Fact]) -> dict[str, object]:
    return {fact.metric: fact.value for fact in facts}


def test_who_builds_the_model_neither_validates_nor_approves_it() -> None:
    assert GERMAN.inventory is not None
    facts = _by_metric(inventory_facts(GERMAN, ["jane"], TODAY))
    assert (facts["developer_is_validator_or_approver"], facts["tier"], facts["missing_required_fields"]) == (
        False,
        "high",
        0,
    )
    assert facts["days_since_tier_review"] == 29
    for entry, approvers in (
        (dataclasses.replace(GERMAN.inventory, validator=f" {GERMAN.inventory.developer.upper()}"), []),
        (dataclasses.replace(GERMAN.inventory, developer="Jane"), ["jane"]),
    ):
        changed = dataclasses.replace(GERMAN, inventory=entry)
        assert _by_metric(inventory_facts(changed, approvers, TODAY))["developer_is_validator_or_approver"] is True


def test_without_an_inventory_entry_nothing_is_claimed() -> None:
    assert inventory_facts(dataclasses.replace(GERMAN, inventory=None), ["jane"], TODAY) == []


def test_what_the_rulebook_leaves_to_the_gate_is_asked_there() -> None:
    left = {check for rule in Rulebook.read().rules for check in rule.at_the_gate}
    assert left
    assert left <= {f"{asset}/{check}" for asset, check in required_checks()}


def test_rules_of_the_running_service_are_not_told_as_open_ones() -> None:
    rules = [
        {"id": "A-01", "status": "not_yet_measured", "phase": "operation"},
        {"id": "B-01", "status": "not_yet_measured", "phase": "promotion"},
        {"id": "C-01", "status": "insufficient_data", "phase": "promotion"},
        {"id": "D-01", "status": "pass", "phase": "promotion"},
    ]
    told = standing(rules)
    assert told["open"] == ["B-01"]
    assert told["not_yet_in_operation"] == ["A-01"]
    assert told["insufficient_data"] == ["C-01"]
    assert told["failed"] == told["warnings"] == []
