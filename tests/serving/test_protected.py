"""Tests for `cde_serving.protected`: what an applicant is decided on, and what is kept apart from it."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cde_domain.portfolio import (
    Monitoring,
    Portfolio,
    PortfolioError,
    ProtectedAttribute,
    load_portfolio,
    shipped_portfolios,
)
from cde_serving.applications import InvalidApplicationError, parse_application
from cde_serving.protected import NOT_COLLECTED, explained, set_apart
from cde_serving.records.erasure import Eraser
from cde_serving.records.monitoring import monitored
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.records.replay import Replayer
from cde_serving.records.schema import records
from cde_serving.records.verify import verify_log
from cde_serving.signing import TrustedKeys
from tests.serving.helpers import SCORE, Desk

GENDERS = ("female", "male", "other")
RELIGIONS = ("hindu", "muslim", "none")
BASIS = "Asked for with the applicant's consent, to monitor fairness (DPDP Act 2023, section 6)"


def asked(name: str, values: tuple[str, ...] | None) -> ProtectedAttribute:
    """A protected attribute, collected if its values are given."""
    monitoring = Monitoring(values=values, legal_basis=BASIS) if values else None
    return ProtectedAttribute(name, lambda book: book[name], "report", "shown", monitoring)


@pytest.fixture
def monitoring_desk(desk: Desk) -> Desk:
    """A desk whose portfolio collects gender and religion, and not caste."""
    bundle = desk.scorer.releases.serving
    assert bundle is not None
    protected = (asked("gender", GENDERS), asked("religion", RELIGIONS), asked("caste", None))
    bundle.engine.portfolio = replace(bundle.portfolio, protected=protected)
    return desk


def refused(desk: Desk, **changes: Any) -> dict[str, str]:
    """The one problem of a refused request."""
    answer = desk.score(**changes)
    assert 422 == answer.status_code, answer.text
    (problem,) = answer.json()["detail"]
    return problem


class TestWithoutCollection:
    """The default: nobody asks."""

    @pytest.mark.parametrize("name", shipped_portfolios())
    def test_no_shipped_portfolio_asks_for_a_protected_attribute(self, name: str) -> None:
        """And whoever sends one is told which and why, under the name of the attribute or of the book's column."""
        portfolio = load_portfolio(name)
        sent = {attribute.name for attribute in portfolio.protected} | {"gender", "personal_status_and_sex"}
        for attribute in sorted(sent):
            body = json.dumps({**portfolio.example, attribute: "female"}).encode()
            assert (body, None) == set_apart(portfolio, body)
            with pytest.raises(InvalidApplicationError) as refusal:
                parse_application(portfolio.application, body)
            (problem,) = explained(portfolio, refusal.value).problems
            assert (attribute, NOT_COLLECTED, "protected_attribute") == (problem.field, problem.message, problem.type)

    def test_it_is_refused_and_nothing_is_recorded(self, monitoring_desk: Desk) -> None:
        problem = refused(monitoring_desk, caste="Jane-Doe")

        assert ("caste", "protected_attribute") == (problem["field"], problem["type"])
        assert "does not collect it for monitoring" in problem["message"]
        assert "Jane" not in json.dumps(problem)
        assert 0 == monitoring_desk.scorer.log.count()

    def test_it_is_refused_inside_a_part_of_the_application_too(self, monitoring_desk: Desk) -> None:
        problem = refused(monitoring_desk, credit_history={"score": 700.0, "gender": "female"})

        assert ("credit_history.gender", "protected_attribute") == (problem["field"], problem["type"])

    def test_another_unknown_field_is_refused_as_before(self, monitoring_desk: Desk) -> None:
        assert "extra_forbidden" == refused(monitoring_desk, shoe_size=43)["type"]


class TestWithCollection:
    """What is asked for is kept, and decides nothing."""

    def test_a_value_that_is_not_asked_for_is_refused_without_being_repeated(self, monitoring_desk: Desk) -> None:
        for value in ("Jane-Doe", 4711, ["female"], {"a": 1}, True):
            problem = refused(monitoring_desk, gender=value)
            assert ("gender", "Input should be 'female', 'male', 'other' or null") == (
                problem["field"],
                problem["message"],
            )
        assert 0 == monitoring_desk.scorer.log.count()

    def test_given_twice_it_is_refused(self, monitoring_desk: Desk) -> None:
        body = json.dumps({**monitoring_desk.example, "gender": "female"})[:-1] + ', "gender": "male"}'
        answer = monitoring_desk.client.post(SCORE, content=body, headers={"content-type": "application/json"})

        assert (422, "duplicate_key") == (answer.status_code, answer.json()["detail"][0]["type"])

    def test_it_is_kept_apart_encrypted_and_joined_by_the_customers_token(
        self, monitoring_desk: Desk, tmp_path: Path
    ) -> None:
        """Neither request, features nor answer of the decision's record holds it."""
        answer = monitoring_desk.score(gender="female", religion="none").json()
        monitoring_desk.score(customer_id="customer-2", gender=None)
        log = monitoring_desk.scorer.log
        record = log.get(answer["decision_id"], DEFAULT_TENANT)
        (kept,) = monitored(log.read_engine, log.master)
        with log.read_engine.connect() as connection:
            customers = connection.execute(sa.select(records.c.customer, records.c.kind)).all()

        assert record is not None
        assert record.protected is None
        assert "female" not in str(record)
        assert "gender" not in str(record)
        assert (answer["decision_id"], {"gender": "female", "religion": "none"}) == (kept.decision_id, kept.attributes)
        assert kept.customer == log.master.token("customer", "default", "customer-1")
        assert {(kept.customer, "decision"), (kept.customer, "protected")} < set(map(tuple, customers))
        assert 4 == len(customers)  # with the creation of the key that asked
        log.close()
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("decisions.sqlite*"))
        assert b"female" not in stored

    def test_the_engine_is_not_given_it(self, monitoring_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        bundle = monitoring_desk.scorer.releases.serving
        assert bundle is not None
        seen: list[Any] = []
        decide_all = bundle.engine.decide_all
        monkeypatch.setattr(bundle.engine, "decide_all", lambda *given: (seen.append(given), decide_all(*given))[1])
        monitoring_desk.score(gender="female")

        (((application,), _),) = seen
        assert monitoring_desk.example.keys() == application.model_dump(exclude_unset=True).keys()
        assert not hasattr(application, "gender")

    def test_the_log_verifies_replays_and_counts_decisions_alone(self, monitoring_desk: Desk, tmp_path: Path) -> None:
        monitoring_desk.score(gender="female")
        log = monitoring_desk.scorer.log
        (again,) = Replayer(log.store, monitoring_desk.scorer.releases.store.bundles).replay_all()
        log.close()
        found = verify_log(log.read_engine, tmp_path / "checkpoints.jsonl", TrustedKeys.read(tmp_path / "log.pub"))

        assert ("identical", True) == (again.outcome, again.from_request)
        assert ((), 3, 1) == (found.problems, found.records, log.count())

    def test_in_a_batch_it_is_kept_apart_or_refused_item_by_item(self, monitoring_desk: Desk) -> None:
        people = [{"gender": "other"}, {"gender": "Jane-Doe"}, {"caste": "x"}, {}]
        batch = {"applications": [{**monitoring_desk.example, **person} for person in people]}
        results = monitoring_desk.client.post(f"{SCORE}/batch", json=batch).json()["results"]
        log = monitoring_desk.scorer.log
        (kept,) = monitored(log.read_engine, log.master)

        assert [200, 422, 422, 200] == [result["status"] for result in results]
        assert "protected_attribute" == results[2]["detail"][0]["type"]
        assert (results[0]["answer"]["decision_id"], {"gender": "other"}) == (kept.decision_id, kept.attributes)

    def test_an_erased_customer_is_no_longer_monitored(self, monitoring_desk: Desk) -> None:
        monitoring_desk.score(gender="female")
        log = monitoring_desk.scorer.log
        asyncio.run(Eraser(log, "tiny_loans", retention_days=0, by="person:officer").erase("customer-1", at_once=True))

        assert [] == list(monitored(log.read_engine, log.master))

    def test_the_openapi_document_says_what_is_asked_and_why(self, monitoring_desk: Desk) -> None:
        schemas = monitoring_desk.client.get("/openapi.json").json()["components"]["schemas"]
        properties = schemas["TinyApplication"]["properties"]

        assert [*GENDERS, None] == properties["gender"]["enum"]
        assert "DPDP Act" in properties["gender"]["description"]
        assert "caste" not in properties

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        income=st.floats(1, 1e8),
        amount=st.floats(1, 1e7),
        score=st.one_of(st.none(), st.floats(300, 900)),
        gender=st.sampled_from([*GENDERS, None]),
        religion=st.sampled_from([*RELIGIONS, None]),
    )
    def test_a_decision_does_not_change_with_a_protected_attribute_to_the_bit(
        self, monitoring_desk: Desk, income: float, amount: float, score: float | None, gender: str, religion: str
    ) -> None:
        """Answer and record are those of an applicant who says nothing."""
        changes = {"annual_income": income, "loan_amount": amount, "credit_history": {"score": score}}
        silent = monitoring_desk.score(**changes)
        told = monitoring_desk.score(**changes, gender=gender, religion=religion)

        first, second = silent.json(), told.json()
        log = monitoring_desk.scorer.log
        one, other = (
            log.get(first.pop("decision_id"), DEFAULT_TENANT),
            log.get(second.pop("decision_id"), DEFAULT_TENANT),
        )
        assert (200, first) == (told.status_code, second)
        assert one is not None
        assert other is not None
        assert (one.payload.features, one.payload.request) == (other.payload.features, other.payload.request)
        assert silent.content[50:] == told.content[50:]


class TestDeclaration:
    """A portfolio says so in so many words."""

    @pytest.mark.parametrize(
        ("attribute", "told"),
        [
            (asked("loan_amount", GENDERS), "cannot be a field of the application"),
            (asked("score", GENDERS), "cannot be a field of the application"),
            (asked("gender", ("female",)), "takes two `values` or more"),
            (replace(asked("gender", None), monitoring=Monitoring(values=GENDERS, legal_basis="")), "`legal_basis`"),
        ],
    )
    def test_a_declaration_that_contradicts_itself_is_refused(
        self, tiny: Any, attribute: ProtectedAttribute, told: str
    ) -> None:
        portfolio: Portfolio = tiny.portfolio
        with pytest.raises(PortfolioError, match=told):
            replace(portfolio, protected=(attribute,))
