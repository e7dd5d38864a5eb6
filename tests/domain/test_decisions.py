"""Decisions: who decides, and which reasons a rejected applicant is given."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_domain.decisions.engine import DecidedBy, DecisionEngine, Routing
from cde_domain.decisions.policy import Condition, Outcome, Rule
from tests.domain.open_book import BAD, GOOD, NAMES, UNKNOWN, WEIGHTS, decide, open_book, rule
from tests.support import TinyLoans

TODAY = date(2026, 3, 1)


def test_the_score_decides_where_no_rule_does(tiny: TinyLoans):
    engine = open_book(tiny)

    approved = decide(engine, GOOD, GOOD, GOOD, GOOD, GOOD, 1)
    between = decide(engine, GOOD, BAD, BAD, GOOD, GOOD, 1)

    assert (approved.decision, approved.decided_by, approved.reason_codes) == ("APPROVED", "model", ())
    assert (between.decision, between.reason_codes) == ("MANUAL_REVIEW", (Routing.SCORE_BETWEEN_CUT_OFFS,))
    assert approved.score == approved.confidence == pytest.approx(1 / (1 + np.exp(-2.1)), abs=5e-7)


def test_an_unlikely_repayment_is_a_confident_rejection(tiny: TinyLoans):
    rejected = decide(open_book(tiny), BAD, BAD, BAD, BAD, BAD, 0)

    assert rejected.score is not None
    assert rejected.confidence == round(1 - rejected.score, 6)


def test_a_rejection_names_its_four_worst_reasons_and_no_more_risk_factors(tiny: TinyLoans):
    rejected = decide(open_book(tiny), BAD, BAD, BAD, BAD, BAD, 0)

    assert rejected.reason_codes == ("INCOME", "SAVINGS", "TENURE", "HISTORY")
    assert rejected.risk_factors == (*(f"{name} is low" for name in NAMES[:4]),)


def test_reasons_are_ordered_by_what_separates_from_those_who_just_passed(tiny: TinyLoans):
    already_bad_among_those_who_passed = (-0.6, *WEIGHTS[1:])

    rejected = decide(
        open_book(tiny, baseline=already_bad_among_those_who_passed), BAD, BAD, BAD, BAD, BAD, 1
    )  # income separates nobody

    assert rejected.reason_codes == ("SAVINGS", "TENURE", "HISTORY", "DEPOSIT")


def test_what_speaks_for_the_applicant_is_no_reason(tiny: TinyLoans):
    generous = (5.0,) * 6  # those who just passed are better in everything

    rejected = decide(open_book(tiny, baseline=generous, intercept=-3.0), BAD, GOOD, BAD, GOOD, BAD, 1)

    assert rejected.contributions["savings"] > 0
    assert rejected.reason_codes == ("INCOME", "TENURE", "DEPOSIT")
    assert set(rejected.risk_factors) == {"income is low", "tenure is low", "deposit is low"}


def test_a_rejection_has_a_reason_even_if_nothing_speaks_against_the_applicant(tiny: TinyLoans):
    strict = open_book(tiny, baseline=(0.9, 0.5, 0.4, 0.3, 0.2, 0.1), intercept=-9.0)

    rejected = decide(strict, GOOD, GOOD, GOOD, GOOD, GOOD, 1)

    assert (rejected.decision, rejected.reason_codes) == (Outcome.REJECTED, ("INCOME",))


def test_what_is_unknown_is_named_as_unknown(tiny: TinyLoans):
    rejected = decide(open_book(tiny), UNKNOWN, BAD, BAD, BAD, GOOD, UNKNOWN)

    assert rejected.reason_codes == ("INCOME_UNKNOWN", "SAVINGS", "TENURE", "HISTORY")
    assert rejected.risk_factors[0] == "Not known: the income"
    reviewed = decide(open_book(tiny), UNKNOWN, BAD, GOOD, GOOD, GOOD, UNKNOWN)
    assert reviewed.risk_factors == ("Not known: the income", "savings is low", "Not known: the purpose")
    assert rejected.features["income"] is rejected.features["purpose"] is None


def test_categories_are_recorded_by_their_words(tiny: TinyLoans):
    assert decide(open_book(tiny), GOOD, GOOD, GOOD, GOOD, GOOD, 2).features["purpose"] == "house"


def test_the_explanation_adds_up_to_the_margin(tiny: TinyLoans):
    decision = decide(open_book(tiny), GOOD, BAD, GOOD, BAD, GOOD, 0)

    assert decision.contributions == pytest.approx(dict(zip(NAMES, (0.6, -0.5, 0.4, -0.3, 0.2, -0.1), strict=True)))
    assert decision.base + sum(decision.contributions.values()) == pytest.approx(0.3)


LOW_INCOME = rule("INCOME_TOO_LOW", Condition(feature="income", below=0))
NO_YACHTS = rule("NO_YACHTS", Condition(feature="purpose", is_any_of=("yacht",)), Outcome.MANUAL_REVIEW)


def test_a_knock_out_carries_its_own_code_and_the_contributions_are_still_there(tiny: TinyLoans):
    knocked_out = decide(open_book(tiny, rules=(LOW_INCOME,)), BAD, GOOD, GOOD, GOOD, GOOD, 1)

    assert knocked_out.decision is Outcome.REJECTED
    assert knocked_out.decided_by is DecidedBy.RULE
    assert knocked_out.reason_codes == ("INCOME_TOO_LOW",)
    assert knocked_out.detail == "because of INCOME_TOO_LOW"
    assert knocked_out.contributions["income"] == pytest.approx(-0.6)
    assert knocked_out.score is not None


@pytest.mark.parametrize(
    ("rules", "code"), [((LOW_INCOME, NO_YACHTS), "INCOME_TOO_LOW"), ((NO_YACHTS, LOW_INCOME), "NO_YACHTS")]
)
def test_the_first_rule_that_matches_wins(rules: tuple[Rule, ...], code: str, tiny: TinyLoans):
    decision = decide(open_book(tiny, rules=rules), BAD, GOOD, GOOD, GOOD, GOOD, 0)

    assert decision.reason_codes == (code,)


def test_a_rule_that_does_not_match_leaves_the_decision_to_the_next(tiny: TinyLoans):
    decision = decide(open_book(tiny, rules=(LOW_INCOME, NO_YACHTS)), GOOD, GOOD, GOOD, GOOD, GOOD, 0)

    assert (decision.decision, decision.reason_codes) == (Outcome.MANUAL_REVIEW, ("NO_YACHTS",))


def test_a_rule_whose_input_is_unknown_sends_the_application_to_a_person(tiny: TinyLoans):
    decision = decide(open_book(tiny, rules=(LOW_INCOME,)), UNKNOWN, GOOD, GOOD, GOOD, GOOD, 1)

    assert decision.decision is Outcome.MANUAL_REVIEW
    assert decision.reason_codes == (Routing.RULE_INPUT_UNKNOWN,)
    assert decision.detail == "income"


def test_an_earlier_knock_out_stands_whatever_a_later_rule_does_not_know(tiny: TinyLoans):
    decision = decide(open_book(tiny, rules=(LOW_INCOME, NO_YACHTS)), BAD, GOOD, GOOD, GOOD, GOOD, UNKNOWN)

    assert decision.reason_codes == ("INCOME_TOO_LOW",)


def test_a_value_outside_the_trained_range_sends_the_application_to_a_person(tiny: TinyLoans):
    decision = decide(open_book(tiny), 1.01, GOOD, GOOD, -1.01, GOOD, 1)

    assert (decision.decision, decision.decided_by) == (Outcome.MANUAL_REVIEW, DecidedBy.FALLBACK)
    assert decision.reason_codes == (Routing.OUTSIDE_TRAINED_RANGE,)
    assert decision.detail == "income, history"


def test_an_absence_that_training_never_met_sends_the_application_to_a_person(tiny: TinyLoans):
    decision = decide(open_book(tiny, unknown_seen=False), GOOD, UNKNOWN, GOOD, GOOD, GOOD, 1)

    assert (decision.decision, decision.decided_by) == (Outcome.MANUAL_REVIEW, DecidedBy.FALLBACK)
    assert (decision.reason_codes, decision.detail) == ((Routing.OUTSIDE_TRAINED_RANGE,), "savings")


def test_a_score_that_is_no_number_is_never_an_approval(tiny: TinyLoans):
    decision = decide(open_book(tiny, intercept=float("nan")), GOOD, GOOD, GOOD, GOOD, GOOD, 1)

    assert (decision.decision, decision.decided_by) == (Outcome.MANUAL_REVIEW, DecidedBy.FALLBACK)
    assert decision.reason_codes == (Routing.SCORE_UNAVAILABLE,)
    assert decision.score is decision.confidence is None


def test_a_knock_out_needs_no_score(tiny: TinyLoans):
    engine = open_book(tiny, rules=(LOW_INCOME,), intercept=float("nan"))

    assert decide(engine, BAD, GOOD, GOOD, GOOD, GOOD, 1).reason_codes == ("INCOME_TOO_LOW",)


def test_the_example_of_the_portfolio_is_decided(tiny: TinyLoans, tiny_engine: DecisionEngine):
    application = tiny.portfolio.application.model_validate(
        {**tiny.portfolio.example, "employed_since": date(2020, 3, 1)}
    )

    decision = tiny_engine.decide(application, TODAY)

    assert decision.decided_by is DecidedBy.MODEL
    assert decision.features["loan_to_income"] == pytest.approx(5000 / 60000)
    assert decision.features["total_balance"] == 1200.0


@given(income=st.floats(10_000, 200_000), more=st.floats(1, 3), loan=st.floats(1000, 50_000))
@settings(max_examples=100, deadline=None)
def test_more_income_never_lowers_the_score_of_an_application(
    tiny_engine: DecisionEngine, income: float, more: float, loan: float
):
    def score(annual_income: float) -> float:
        application = tiny_engine.portfolio.application.model_validate(
            {"customer_id": "c", "annual_income": annual_income, "loan_amount": loan, "loan_purpose": "car"}
        )
        decided = tiny_engine.decide(application, TODAY).score
        assert decided is not None
        return decided

    assert score(income * more) >= score(income)
