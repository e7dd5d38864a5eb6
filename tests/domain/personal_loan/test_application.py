"""The contract of an application for a personal loan."""

from typing import Any

import pytest
from pydantic import ValidationError

from cde_domain.portfolio import load_portfolio
from cde_domain.portfolios.personal_loan import PORTFOLIO
from cde_domain.portfolios.personal_loan.application import PersonalLoanApplication
from tests.domain.personal_loan.applications import SPECS, application


def test_the_portfolio_is_shipped():
    assert load_portfolio("personal_loan") is PORTFOLIO


def test_the_example_is_an_acceptable_application():
    assert application().customer_id == "test_123"


def test_an_application_without_customer_and_with_negative_income_is_refused_on_those_fields():
    with pytest.raises(ValidationError) as refusal:
        PersonalLoanApplication.model_validate_json('{"customer_id": "", "annual_income": -1000}')

    wrong = {error["loc"][0] for error in refusal.value.errors() if error["type"] != "missing"}
    assert wrong == {"customer_id", "annual_income"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("annual_income", "75000"),
        ("employment_years", 71),
        ("existing_debt", -1),
        ("loan_amount", 0),
        ("loan_purpose", "gambling"),
        ("credit_history", {"score": 299}),
        ("credit_history", {"accounts": [{"type": "credit_card", "status": "unheard_of"}]}),
        ("credit_history", {"inquiries": [{"date": "2026-01-01"}] * 201}),
        ("bank_statements", [{"month_end": "2026-01-31"}]),
        ("religion", "Hindu"),
    ],
)
def test_a_value_out_of_bounds_or_unknown_is_refused(field: str, value: Any):
    with pytest.raises(ValidationError) as refusal:
        application(**{field: value})

    assert {error["loc"][0] for error in refusal.value.errors()} == {field}


def test_every_field_says_what_it_is_for():
    assert all(column.description and column.purpose and column.source for column in SPECS)


def test_no_applicant_is_asked_for_a_protected_attribute():
    asked = {column.name for column in SPECS}

    assert asked.isdisjoint(attribute.name for attribute in PORTFOLIO.protected)
