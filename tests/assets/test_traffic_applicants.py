"""Tests for simulated applicants: who they are, and what a request of theirs holds."""

import dataclasses
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cde_assets.traffic.applicants import Applicant, Applicants, ApplicantsError
from cde_assets.traffic.loans import Loan, Loans
from cde_domain.portfolio import Monitoring, Portfolio, load_portfolio

DAY = date(2025, 7, 1)
PERSONAL = load_portfolio("personal_loan")
GERMAN = load_portfolio("german_credit")


def drawn(portfolio: Portfolio, day: date = DAY, number: int = 300, **options: Any) -> list[Applicant]:
    """The applicants of a day."""
    return Applicants(portfolio, portfolio.options(), **{"seed": 1, **options}).of_day(day, number)


@pytest.fixture(scope="module")
def people() -> list[Applicant]:
    """Applicants of one day of the simulated portfolio."""
    return drawn(PERSONAL)


def test_the_same_seed_and_day_are_the_same_applicants(people: list[Applicant]) -> None:
    """And another seed or day are others, all of them new customers."""
    assert people == drawn(PERSONAL)
    incomes = {
        tuple(one.application["annual_income"] for one in some)
        for some in (people, drawn(PERSONAL, seed=2), drawn(PERSONAL, date(2025, 7, 2)))
    }
    assert 3 == len(incomes)
    assert 300 == len({one.application["customer_id"] for one in people})


@pytest.mark.parametrize("day", [date(2022, 1, 1), DAY, date(2026, 11, 1)])
def test_dates_lie_as_far_before_the_application_as_in_the_book(day: date) -> None:
    """None in the future, the newest of the last weeks, and ages are those of grown-ups."""
    newest = []
    for one in drawn(PERSONAL, day):
        taken = PERSONAL.application.model_validate_json(json.dumps(one.application))
        history = taken.credit_history
        dates = [inquiry.date for inquiry in history.inquiries or []]
        dates += [account.opened_at for account in history.accounts or [] if account.opened_at]
        dates += [statement.month_end for statement in taken.bank_statements or []]
        newest.append(max(dates, default=date.min))
        if taken.date_of_birth:
            assert 18 <= (day - taken.date_of_birth).days / 365.25 < 71
    assert day - timedelta(days=30) < max(newest) <= day


def test_most_loans_will_be_repaid_and_no_request_says_which(people: list[Applicant]) -> None:
    """As in the book: about four of five."""
    assert 0.70 < np.mean([one.repays for one in people]) < 0.90
    assert not {"repaid", "status", "outcome"} & {name for one in people for name in one.application}


def test_drifted_applicants_are_poorer_and_riskier(people: list[Applicant]) -> None:
    """By a standard deviation: incomes by some 40 %, and more of them default."""
    drifted = drawn(PERSONAL, drift=1.0)

    def income(some: list[Applicant]) -> float:
        return float(np.median([one.application["annual_income"] for one in some]))

    assert 0.5 < income(drifted) / income(people) < 0.75
    assert np.mean([one.repays for one in drifted]) < np.mean([one.repays for one in people]) - 0.05


def test_a_fixed_book_is_drawn_with_replacement_and_cannot_drift() -> None:
    """German credit has 1,000 loans; 3,000 applicants come all the same."""
    people = drawn(GERMAN, number=3_000)

    bodies = [{**one.application, "customer_id": ""} for one in people]
    assert 600 < len({json.dumps(body, sort_keys=True) for body in bodies}) <= 1_000
    with pytest.raises(ApplicantsError, match="german_credit are a fixed book, which cannot drift"):
        drawn(GERMAN, drift=0.5)


def test_protected_attributes_are_sent_where_the_portfolio_collects_them() -> None:
    """Only those, and only answers that it asks for; elsewhere none."""
    collecting = dataclasses.replace(
        PERSONAL,
        protected=tuple(
            dataclasses.replace(
                one,
                monitoring=Monitoring(values=("female", "male"), legal_basis="12 CFR 1002.5(a)(4)")
                if one.name == "gender"
                else None,
            )
            for one in PERSONAL.protected
        ),
    )
    silent = dataclasses.replace(
        PERSONAL, protected=tuple(dataclasses.replace(one, monitoring=None) for one in PERSONAL.protected)
    )

    told = [one.application.get("gender") for one in drawn(collecting)]

    assert {"female", "male", None} == set(told)
    names = {one.name for one in PERSONAL.protected}
    assert {"gender"} == names & {name for one in drawn(collecting) for name in one.application}
    assert not names & {name for one in drawn(silent) for name in one.application}


class TestLoans:
    """Tests for `Loans`."""

    def test_what_was_granted_waits_for_its_day_over_restarts(self, tmp_path: Path) -> None:
        """Once returned it is not due again."""
        path = tmp_path / "1.jsonl"
        loans = [Loan(f"key-{n}", f"{n:032x}", n > 0, date(2026, 7, 1 + n)) for n in range(3)]
        Loans(path).granted(loans)

        assert loans[:2] == Loans(path).due(date(2026, 7, 2))
        Loans(path).returned(loans[:1])
        assert loans[1:2] == Loans(path).due(date(2026, 7, 2))
        Loans(path).granted(loans)  # a rerun of the day on which they were granted
        assert (loans[1:], 2) == (Loans(path).due(date(2027, 1, 1)), len(Loans(path)))

    def test_a_line_that_a_crash_cut_off_costs_that_loan_alone(self, tmp_path: Path) -> None:
        """It is granted again by the rerun, under its key."""
        path = tmp_path / "1.jsonl"
        loans = [Loan(f"key-{n}", f"{n:032x}", True, DAY) for n in range(2)]
        Loans(path).granted(loans)
        path.write_text(path.read_text()[:-20])

        assert loans[:1] == Loans(path).due(DAY)
        Loans(path).granted(loans)
        assert loans == Loans(path).due(DAY)
