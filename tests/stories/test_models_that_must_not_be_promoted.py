"""Worse, unfair, unmonotone and leaking models, made on purpose: each is stopped by the check that names it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cde_checks.judgement import required_checks
from cde_domain.training import boosting
from tests.lender import Lender, Run

# Each is a portfolio of its own in a folder outside the repository, made from the real German loans.
HEAD = """
import dataclasses
import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from cde_domain.application import field
from cde_domain.features.feature import Feature
from cde_domain.portfolio import OutcomeLabel, ProtectedAttribute
from cde_domain.portfolios.german_credit import PORTFOLIO

POLICY = Path(__file__).parent / "policy.yaml"
GERMAN = dataclasses.replace(PORTFOLIO, tuning_budget=1, alternatives=20)


def sex(book):
    return book["personal_status_and_sex"].str.split(" ").str[0]

"""
SHUFFLED = """
def join(tables):
    book = GERMAN.join(tables)
    return book.assign(creditability=book["creditability"].sample(frac=1, random_state=1).to_numpy())

PORTFOLIO = dataclasses.replace(GERMAN, name="shuffled_labels", join=join, policy_file=POLICY)
"""
COPIED = """
class WithSalutation(GERMAN.application):
    salutation: Literal["Mrs", "Mr"] = field("How the customer is addressed", purpose="letters")

def join(tables):
    book = GERMAN.join(tables)
    return book.assign(salutation=sex(book).map({"female": "Mrs", "male": "Mr"}))

SALUTATION = Feature("salutation", lambda a: a["salutation"], "Salutation", "Salutation", categories=("Mrs", "Mr"))
PORTFOLIO = dataclasses.replace(
    GERMAN, name="copied_attribute", join=join, policy_file=POLICY, application=WithSalutation,
    features=(*GERMAN.features, SALUTATION),
)
"""
UNFAIR = """
def district(book):
    rich = book["status_of_existing_checking_account"] == "no checking account"
    noise = np.random.default_rng(0).random(len(book)) < 0.15
    return pd.Series(np.where(rich ^ noise, "north", "south"), index=book.index)

PORTFOLIO = dataclasses.replace(
    GERMAN, name="unfair_districts", policy_file=POLICY,
    protected=(ProtectedAttribute("district", district, use="gate", why="a test"),),
)
"""
UNMONOTONE = """
def reversed_direction(feature):
    return dataclasses.replace(feature, monotone=1) if feature.name == "duration" else feature

PORTFOLIO = dataclasses.replace(
    GERMAN, name="unmonotone_duration", policy_file=POLICY,
    features=tuple(reversed_direction(feature) for feature in GERMAN.features),
)
"""
LEAKING = """
class WithCollections(GERMAN.application):
    collection_letters: float = field("Letters sent", purpose="collections", ge=0, le=100)

def join(tables):
    book = GERMAN.join(tables)
    return book.assign(collection_letters=(book["creditability"] == "bad") * 3.0)

LETTERS = Feature("collection_letters", lambda a: a["collection_letters"], "Letters sent", "Letters were sent")
PORTFOLIO = dataclasses.replace(
    GERMAN, name="leaking_letters", join=join, policy_file=POLICY, application=WithCollections,
    features=(*GERMAN.features, LETTERS),
)
"""
SLOW = """
THRESHOLDS = dataclasses.replace(GERMAN.thresholds, max_decision_ms=0.0001)
PORTFOLIO = dataclasses.replace(GERMAN, name="hurried_lender", policy_file=POLICY, thresholds=THRESHOLDS)
"""
EARLY = """
def join(tables):
    book = GERMAN.join(tables)
    applied = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(book)), "D")
    known = applied + pd.to_timedelta(np.where(np.arange(len(book)) == 5, 10, 400), "D")
    return book.assign(applied_at=applied, outcome_known_at=known)

PORTFOLIO = dataclasses.replace(
    GERMAN, name="early_outcomes", join=join, policy_file=POLICY,
    outcome=dataclasses.replace(GERMAN.outcome, matures_after_days=365),
)
"""

BLOCKING = {name for _, name in required_checks()}


@pytest.fixture
def run_portfolio(german_home: Path, tmp_path: Path) -> Iterator[Callable[[str, str], tuple[Run, Lender]]]:
    """Write a portfolio into a folder, and run its whole job in the home where German loans are promoted."""
    from cde_domain.portfolios import german_credit

    sys.path.insert(0, str(tmp_path))

    def run(name: str, code: str) -> tuple[Run, Lender]:
        (tmp_path / f"{name}.py").write_text(HEAD + code, encoding="utf-8")
        shutil.copy(Path(german_credit.__file__).parent / "policy.yaml", tmp_path / "policy.yaml")
        with Lender(german_home, f"{name}:PORTFOLIO") as lender:
            return lender.run(), lender

    yield run
    sys.path.remove(str(tmp_path))


def _assert_stopped(run: Run, lender: Lender, check: str, said: str) -> None:
    assert not run.success
    assert [name for name, passed in run.passed.items() if not passed and name in BLOCKING] == [check]
    assert said in run.said[check]
    assert "champion_model" not in run.made
    assert lender.ledger.entries() == ()


EDITED = """
PORTFOLIO = dataclasses.replace(GERMAN, name="edited_policy", policy_file=POLICY)
"""


RunPortfolio = Callable[[str, str], tuple[Run, Lender]]


def test_a_model_of_shuffled_labels_is_stopped_because_it_does_not_discriminate(run_portfolio: RunPortfolio) -> None:
    run, lender = run_portfolio("shuffled", SHUFFLED)
    _assert_stopped(run, lender, "discriminates", "is below 0.72")


def test_a_protected_attribute_copied_into_a_feature_is_found(run_portfolio: RunPortfolio) -> None:
    run, lender = run_portfolio("copied", COPIED)
    _assert_stopped(run, lender, "exclude_protected_attributes", "salutation gives away sex (100%)")
    assert "challenger_model" not in run.made


def test_a_significantly_unfair_model_is_stopped_by_four_fifths(run_portfolio: RunPortfolio) -> None:
    run, lender = run_portfolio("unfair", UNFAIR)
    _assert_stopped(run, lender, "four_fifths_holds", "district=south is approved at 0.")


def test_a_model_that_moves_against_a_declared_direction_is_stopped(
    run_portfolio: RunPortfolio, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = boosting.fit

    def fit_without_constraints(features, matrix, repaid, settings, **options):  # type: ignore[no-untyped-def]
        free = tuple(type(feature)(**{**vars(feature), "monotone": 0}) for feature in features)
        return fit(free, matrix, repaid, settings, **options)

    monkeypatch.setattr(boosting, "fit", fit_without_constraints)
    run, lender = run_portfolio("unmonotone", UNMONOTONE)
    assert run.passed["is_monotone"] is False
    assert "duration moves the wrong way" in run.said["is_monotone"]
    assert "champion_model" not in run.made
    assert lender.ledger.entries() == ()


def test_a_feature_that_knows_the_outcome_is_found(run_portfolio: RunPortfolio) -> None:
    run, lender = run_portfolio("leaking", LEAKING)
    said = "collection_letters alone reaches an AUC of 1.000"
    _assert_stopped(run, lender, "no_single_feature_leaks_the_label", said)


def test_a_model_that_answers_later_than_the_lender_allows_is_stopped(run_portfolio: RunPortfolio) -> None:
    run, lender = run_portfolio("slow", SLOW)
    _assert_stopped(run, lender, "serving_budget_holds", "half of the decisions take longer than")


def test_an_outcome_stated_before_it_can_be_known_stops_the_book(run_portfolio: RunPortfolio) -> None:
    run, lender = run_portfolio("early", EARLY)
    _assert_stopped(run, lender, "outcomes_are_mature", "")
    assert "feature_table" not in run.made


def test_a_policy_edited_after_it_was_judged_is_not_promoted_with_the_old_evidence(
    run_portfolio: RunPortfolio, german_home: Path, tmp_path: Path
) -> None:
    run, lender = run_portfolio("edited", EDITED)
    assert run.success
    promoted = lender.ledger.entries()
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy.read_text().replace("approve_at: 0.8", "approve_at: 0.5"), encoding="utf-8")
    with Lender(german_home, "edited:PORTFOLIO") as lender:
        run = lender.run("champion_model")
        assert "the portfolio's code or policy was changed since it was judged" in run.failures["champion_model"]
        assert lender.ledger.entries() == promoted
