"""Recourse: what a declined applicant can change, and that the engine keeps the promise."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cde_domain.application import Actionable, Application, Record, columns_of, field
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.options import options_of
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.decisions.recourse import Recourse, find_recourse
from cde_domain.governance.recourse_audit import recourse_facts
from cde_domain.portfolio import load_portfolio, shipped_portfolios
from tests.support import TinyLoans

TODAY = date(2026, 3, 1)
STEP = 100


class Account(Record):
    """One credit account."""

    balance: float = field("Amount owed", purpose="test", ge=0, le=1e7)


class CreditHistory(Record):
    """What the bureau knew."""

    score: float | None = field(
        "Bureau score",
        purpose="test",
        default=None,
        ge=300,
        le=900,
        actionable=Actionable("Raise the bureau score", "higher", step=10),
    )
    accounts: list[Account] | None = field("Accounts", purpose="test", default=None, max_length=50)


class ActionableApplication(Application):
    """The application for a tiny loan, with what can be changed about it."""

    annual_income: float = field("Yearly income", purpose="test", gt=0, le=1e8)
    loan_amount: float = field(
        "Amount asked for",
        purpose="test",
        unit="currency",
        gt=0,
        le=1e7,
        actionable=Actionable("Ask for a smaller loan", "lower", step=STEP),
    )
    loan_purpose: Literal["car", "wedding", "other"] = field(
        "What for", purpose="test", actionable=Actionable("Borrow for something else", to=("other", "car"))
    )
    employed_since: date | None = field("First day of employment", purpose="test", default=None)
    note: str | None = field("Free text", purpose="test", default=None, max_length=200)
    credit_history: CreditHistory | None = field("Bureau report", purpose="test", default=None)


@pytest.fixture(scope="module")
def engine(tiny: TinyLoans, tiny_engine: DecisionEngine) -> DecisionEngine:
    policy = Policy(version="1", approve_at=0.8, review_at=0.6, rules=tiny_engine.policy.rules)
    return DecisionEngine(replace(tiny.portfolio, application=ActionableApplication), tiny_engine.model, policy)


def application(**changed: Any) -> ActionableApplication:
    body = {
        "customer_id": "c",
        "annual_income": 60_000.0,
        "loan_amount": 40_000.0,
        "loan_purpose": "wedding",
        "credit_history": {"score": 500.0, "accounts": [{"balance": 9_000.0}]},
    }
    return ActionableApplication.model_validate({**body, **changed})


applications = st.builds(
    lambda income, share, score, balance, purpose: application(
        annual_income=round(income, 2),
        loan_amount=round(income * share, 2),
        loan_purpose=purpose,
        credit_history={"score": score, "accounts": [{"balance": balance}]},
    ),
    st.floats(30_000, 120_000),
    st.floats(0.35, 0.95),
    st.none() | st.floats(400, 800),
    st.floats(100, 12_000),
    st.sampled_from(["car", "wedding", "other"]),
)


def with_changes(applied: BaseModel, changes: Mapping[str, float | str]) -> BaseModel:
    body = applied.model_dump()
    for name, value in changes.items():
        *parents, leaf = name.split(".")
        record = body
        for parent in parents:
            record = record[parent]
        record[leaf] = value
    return type(applied).model_validate(body)


def is_approved(engine: DecisionEngine, applied: BaseModel) -> bool:
    return engine.decide(applied, TODAY).decision is Outcome.APPROVED


def recourse_of(engine: DecisionEngine, applied: BaseModel) -> Recourse:
    found = find_recourse(engine, applied, TODAY)
    assume(found is not None)
    assert found is not None
    return found


@given(applied=applications)
@settings(max_examples=120, deadline=None)
def test_recourse_is_decided_again_as_approved(engine: DecisionEngine, applied: ActionableApplication):
    found = recourse_of(engine, applied)

    again = engine.decide(with_changes(applied, {c.field: c.after for c in found.changes}), TODAY)
    assert (again.decision, again.score) == (Outcome.APPROVED, found.score)
    assert not is_approved(engine, applied)


@given(applied=applications)
@settings(max_examples=120, deadline=None)
def test_recourse_changes_only_what_the_applicant_can_change_and_only_that_way(
    engine: DecisionEngine, applied: ActionableApplication
):
    found = recourse_of(engine, applied)

    changes = {change.field: (change.before, change.after) for change in found.changes}
    assert 1 <= len(changes) <= 3
    assert with_changes(applied, {name: after for name, (_, after) in changes.items()}) == found.application
    for name, (before, after) in changes.items():
        if name == "loan_amount":
            assert 0 < after < before
            assert after % STEP == 0
        elif name == "credit_history.score":
            assert 900 >= after > before
        else:
            assert (name, after) in {("loan_purpose", "car"), ("loan_purpose", "other")}
            assert (before, after) != ("car", "other")


@given(applied=applications)
@settings(max_examples=120, deadline=None)
def test_no_change_can_be_undone_or_lessened(engine: DecisionEngine, applied: ActionableApplication):
    found = recourse_of(engine, applied)

    specs = columns_of(ActionableApplication)
    options = {option.spec.name: option for option in options_of(applied, specs)}
    for change in found.changes:
        spec = options[change.field].spec
        values = options[change.field].values.tolist()
        nearer = values[: values.index(spec.categories.index(change.after) if spec.categories else change.after)]
        for value in nearer:
            lesser = spec.categories[int(value)] if spec.categories else value
            assert not is_approved(engine, with_changes(found.application, {change.field: lesser}))


@given(applied=applications)
@settings(max_examples=80, deadline=None)
def test_where_one_field_is_enough_no_more_are_changed(engine: DecisionEngine, applied: ActionableApplication):
    found = recourse_of(engine, applied)

    alone = any(
        is_approved(
            engine,
            with_changes(applied, {o.spec.name: o.spec.categories[int(v)] if o.spec.categories else v}),
        )
        for o in options_of(applied, columns_of(ActionableApplication))
        for v in o.values[1:].tolist()
    )
    assert (len(found.changes) == 1) == alone


def test_the_same_application_gets_the_same_recourse(engine: DecisionEngine):
    assert find_recourse(engine, application(), TODAY) == find_recourse(engine, application(), TODAY)


def test_the_applicant_reads_what_to_do(engine: DecisionEngine):
    asks_for_much = application(
        loan_amount=58_000.0, loan_purpose="car", credit_history={"score": 750.0, "accounts": [{"balance": 900.0}]}
    )

    found = find_recourse(engine, asks_for_much, TODAY)

    assert found is not None
    (change,) = found.changes
    assert change.sentence == f"Ask for a smaller loan from 58,000 to {change.after:,.0f}"
    assert 0 < found.cost <= 1


def test_whoever_is_approved_needs_no_recourse(engine: DecisionEngine):
    fine = application(loan_amount=1_000.0, credit_history={"score": 880.0, "accounts": [{"balance": 900.0}]})

    assert is_approved(engine, fine)
    assert find_recourse(engine, fine, TODAY) is None


def test_there_is_no_recourse_where_nothing_can_be_changed(tiny: TinyLoans, tiny_engine: DecisionEngine):
    applied = tiny.portfolio.application.model_validate(
        {"customer_id": "c", "annual_income": 20_000.0, "loan_amount": 19_000.0, "loan_purpose": "car"}
    )

    assert not is_approved(tiny_engine, applied)
    assert find_recourse(tiny_engine, applied, TODAY) is None


def test_a_knock_out_is_overcome_like_a_low_score_or_not_at_all(engine: DecisionEngine):
    knocked_out = application(loan_amount=1_000.0, credit_history={"score": 320.0, "accounts": [{"balance": 900.0}]})

    found = find_recourse(engine, knocked_out, TODAY)

    assert found is not None
    assert found.application.model_dump()["credit_history"]["score"] >= 350  # the rule's own limit


def test_a_thin_file_is_not_told_to_raise_a_score_it_does_not_have():
    names = [o.spec.name for o in options_of(application(credit_history=None), columns_of(ActionableApplication))]

    assert names == ["loan_amount", "loan_purpose"]


def test_categories_move_on_and_never_back():
    def ways(purpose: str) -> list[float]:
        options = options_of(application(loan_purpose=purpose), columns_of(ActionableApplication))
        return next((o.values.tolist() for o in options if o.spec.name == "loan_purpose"), [])

    assert (ways("wedding"), ways("other"), ways("car")) == ([1.0, 2.0, 0.0], [2.0, 0.0], [])


@pytest.mark.parametrize(
    ("annotation", "constraints", "problem"),
    [
        (str, {"actionable": Actionable("Write")}, "this is a text"),
        (date, {"actionable": Actionable("Wait")}, "this is a date"),
        (list[Account], {"actionable": Actionable("Open"), "max_length": 9}, "this is a list"),
        (float, {"actionable": Actionable("Earn more", "higher"), "ge": 0}, "higher needs a bound"),
        (float, {"actionable": Actionable("Earn more", "lower", step=0), "ge": 0}, "positive `step`"),
        (Literal["a", "b"], {"actionable": Actionable("Choose", to=("c",))}, "some of a, b"),
        (Literal["a", "b"], {"actionable": Actionable("Choose")}, "some of a, b"),
    ],
)
def test_a_field_that_cannot_be_actionable_is_refused_by_name(annotation: Any, constraints: Any, problem: str):
    made = type(
        "Made",
        (Application,),
        {"__annotations__": {"amount": annotation}, "amount": field("An amount", purpose="test", **constraints)},
    )

    with pytest.raises(TypeError, match=f"^amount: .*{problem}"):
        columns_of(made)


@pytest.mark.parametrize("name", shipped_portfolios())
def test_no_shipped_portfolio_asks_applicants_to_change_who_they_are_or_what_was(name: str):
    actionable = {spec.name for spec in columns_of(load_portfolio(name).application) if spec.actionable}

    assert actionable
    assert not [field for field in actionable if any(word in field for word in ("birth", "age", "history", "employ"))]


def test_the_audit_counts_who_has_recourse_and_whether_it_holds(engine: DecisionEngine):
    random = np.random.default_rng(5)
    declined = [
        (applied, TODAY)
        for _ in range(60)
        if not is_approved(engine, applied := application(loan_amount=float(random.uniform(5_000, 60_000)), note=None))
    ]

    facts = recourse_facts(engine, declined)

    found = [recourse for applied, at in declined if (recourse := find_recourse(engine, applied, at))]
    assert (facts["declined"], facts["with_recourse"], facts["valid"]) == (len(declined), len(found), len(found))
    assert sum(row["applicants"] for row in facts["by_changes"]) == len(found) > 0
    assert facts["actionable"] == ["loan_amount", "loan_purpose", "credit_history.score"]


@pytest.mark.parametrize(("amount", "step", "points"), [(950.0, 100, 9), (40_050.0, 100, 400), (5e6, 10_000, 499)])
def test_amounts_go_down_in_steps_that_a_person_would_name(amount: float, step: int, points: int):
    (loan, *_) = options_of(application(loan_amount=amount), columns_of(ActionableApplication))

    assert loan.values[0] == amount
    assert loan.values[1:].tolist() == [step * number for number in range(points, 0, -1)]
