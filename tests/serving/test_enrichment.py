"""Tests for `cde_serving.enrichment`: what the bureau is asked, and that its faults end with a person."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cde_domain.decisions.engine import Routing
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio import Enrichment, PortfolioError
from cde_domain.portfolios.personal_loan import PORTFOLIO as PERSONAL_LOAN
from cde_serving.applications import InvalidApplicationError
from cde_serving.breaker import Breaker
from cde_serving.enrichment import Bureau, Enricher
from cde_serving.intake import Intake
from cde_serving.records.record import DEFAULT_TENANT, Record
from cde_serving.records.replay import Replayer
from tests.serving.fake_bureau import FAULTS, REPORT, FakeBureau, running_bureau
from tests.serving.helpers import NOON, Desk, free_port
from tests.support import TinyLoans

DEADLINE = 0.3
UNAVAILABLE, INVALID = ["ENRICHMENT_UNAVAILABLE"], ["ENRICHMENT_INVALID"]
EXPECTED = {
    **dict.fromkeys(FAULTS, INVALID),
    **dict.fromkeys(
        ("time-out", "slow drip", "error 500", "error 503", "error 404", "cut off", "no HTTP", "redirect"), UNAVAILABLE
    ),
}
del EXPECTED["none"]


@pytest.fixture(scope="module")
def one_bureau() -> Iterator[FakeBureau]:
    with running_bureau() as bureau:
        yield bureau


@pytest.fixture
def bureau(one_bureau: FakeBureau) -> FakeBureau:
    """The bureau, well again and with nothing asked."""
    one_bureau.fault, one_bureau.failures, one_bureau.hanging = "none", 0, 0
    one_bureau.lookups.clear()
    return one_bureau


@dataclass
class Enriched:
    """A desk that asks a bureau for the credit history that a request leaves out."""

    desk: Desk
    url: str
    breaker: Callable[[], Breaker] = Breaker
    seconds: float = 0.0  # that the answers took, without opening a client

    def ask(self, *requests: dict[str, Any], key: str | None = None) -> list[dict[str, Any]]:
        """The answers to requests, one after the other in one event loop, as in the service."""

        async def send() -> list[dict[str, Any]]:
            enricher = Enricher(Bureau(self.url, DEADLINE, self.desk.scorer.metrics.bureau_asked, self.breaker()))
            self.desk.scorer.enricher = enricher
            began = time.monotonic()
            try:
                return [
                    json.loads(await self.desk.scorer.score(json.dumps(request).encode(), idempotency_key=key))
                    for request in requests
                ]
            finally:
                self.seconds = time.monotonic() - began
                await enricher.bureau.close()

        return asyncio.run(send())

    def without_history(self, **changes: Any) -> dict[str, Any]:
        """The example without its credit history."""
        return {**{name: value for name, value in self.desk.example.items() if name != "credit_history"}, **changes}

    def record_of(self, answer: dict[str, Any]) -> Record:
        record = self.desk.scorer.log.get(answer["decision_id"], DEFAULT_TENANT)
        assert record is not None
        return record

    def metric(self, result: str) -> bool:
        return f'cde_bureau_lookups_total{{result="{result}"}}' in self.desk.client.get("/metrics").text


@pytest.fixture
def enriched(desk: Desk, bureau: FakeBureau) -> Enriched:
    served = desk.scorer.releases.serving
    assert served is not None
    history = served.portfolio.application.model_fields["credit_history"].annotation
    model = next(one for one in history.__args__ if one is not type(None))  # type: ignore[union-attr]
    portfolio = replace(served.portfolio, enrichment=Enrichment("credit_history", answer=model))
    served.engine.portfolio = portfolio
    return Enriched(desk, bureau.url)


def test_what_a_request_leaves_out_is_fetched_recorded_and_decided_on(enriched: Enriched, bureau: FakeBureau) -> None:
    """As if the applicant's lender had sent it; the record says that it was fetched, and replays without the bureau."""
    (fetched,) = enriched.ask(enriched.without_history())
    (sent,) = enriched.ask(enriched.without_history(credit_history=REPORT))

    assert [{"customer_id": "customer-1", "applied_on": "2026-03-02"}] == bureau.lookups
    assert (fetched["score"], fetched["decision"]) == (sent["score"], sent["decision"])
    records = enriched.record_of(fetched), enriched.record_of(sent)
    assert records[0].payload.features == records[1].payload.features
    assert json.loads(records[0].payload.request) == json.loads(records[1].payload.request)
    assert (("credit_history",), ()) == (records[0].payload.fetched, records[1].payload.fetched)
    replayer = Replayer(enriched.desk.scorer.log.store, enriched.desk.scorer.releases.store.bundles)
    assert [("identical", True)] * 2 == [(one.outcome, one.from_request) for one in replayer.replay_all()]


def test_what_is_given_or_said_to_be_unknown_is_not_asked_for(enriched: Enriched, bureau: FakeBureau) -> None:
    """A null in the request is an answer: the lender knows of no report."""
    given, unknown = enriched.ask(enriched.desk.example, enriched.without_history(credit_history=None))

    assert [] == bureau.lookups
    assert {"APPROVED", "MANUAL_REVIEW"} == {given["decision"], unknown["decision"]}
    assert ["RULE_INPUT_UNKNOWN"] == unknown["reason_codes"]


@pytest.mark.parametrize("fault", EXPECTED)
def test_a_fault_of_the_bureau_ends_with_a_person_in_time(enriched: Enriched, bureau: FakeBureau, fault: str) -> None:
    """Never an approval, never later than the deadline, and the record replays as what it was."""
    bureau.fault = fault

    (answer,) = enriched.ask(enriched.without_history())

    assert enriched.seconds < DEADLINE + 0.5
    assert ("MANUAL_REVIEW", EXPECTED[fault]) == (answer["decision"], answer["reason_codes"])
    assert "fallback" == answer["explanation"]["decided_by"]
    replayed = Replayer(enriched.desk.scorer.log.store, enriched.desk.scorer.releases.store.bundles).replay_all()
    assert [("identical", True)] == [(one.outcome, one.from_request) for one in replayed]
    assert enriched.metric("unavailable" if EXPECTED[fault] == UNAVAILABLE else "invalid")


def test_a_refused_connection_ends_with_a_person(enriched: Enriched) -> None:
    """Nobody listens."""
    enriched.url = f"http://127.0.0.1:{free_port()}/reports"

    (answer,) = enriched.ask(enriched.without_history())

    assert ("MANUAL_REVIEW", UNAVAILABLE) == (answer["decision"], answer["reason_codes"])


@pytest.mark.parametrize(("alone", "cut_off"), [("APPROVED", 0.001), ("REJECTED", 0.999)])
def test_whatever_the_rest_alone_would_come_to_a_person_decides(
    enriched: Enriched, bureau: FakeBureau, monkeypatch: pytest.MonkeyPatch, alone: str, cut_off: float
) -> None:
    """Under a policy that would decide without any report, a time-out neither approves nor rejects."""
    served = enriched.desk.scorer.releases.serving
    assert served is not None
    without_rules = {"rules": (), "approve_at": cut_off, "review_at": cut_off}
    served.engine.policy = served.engine.policy.model_copy(update=without_rules)
    monkeypatch.setattr(ScoringModel, "outside_range", lambda *_: [])
    bureau.fault = "time-out"

    unknown, timed_out = enriched.ask(enriched.without_history(credit_history=None), enriched.without_history())

    assert alone == unknown["decision"]
    assert unknown["score"] == timed_out["score"]
    assert ("MANUAL_REVIEW", UNAVAILABLE) == (timed_out["decision"], timed_out["reason_codes"])


@pytest.mark.parametrize(("failures", "lookups", "codes"), [(1, 2, []), (2, 2, UNAVAILABLE)])
def test_a_lookup_is_tried_twice(
    enriched: Enriched, bureau: FakeBureau, failures: int, lookups: int, codes: list[str]
) -> None:
    """One error is survived, two are not."""
    bureau.failures = failures

    (answer,) = enriched.ask(enriched.without_history())

    assert (lookups, codes) == (len(bureau.lookups), answer["reason_codes"])


def test_a_lookup_that_hangs_leaves_time_for_a_second(enriched: Enriched, bureau: FakeBureau) -> None:
    """Each try has half of the deadline."""
    bureau.hanging = 1

    (answer,) = enriched.ask(enriched.without_history())

    assert (2, "APPROVED") == (len(bureau.lookups), answer["decision"])


@pytest.mark.parametrize("fault", ["error 404", "out of range"])
def test_what_would_not_get_better_is_not_tried_again(enriched: Enriched, bureau: FakeBureau, fault: str) -> None:
    """A lookup costs money."""
    bureau.fault = fault

    enriched.ask(enriched.without_history())

    assert 1 == len(bureau.lookups)


def test_a_request_that_is_sent_again_is_not_looked_up_again(enriched: Enriched, bureau: FakeBureau) -> None:
    """Under an idempotency key the recorded answer is enough."""
    first, again = enriched.ask(enriched.without_history(), enriched.without_history(), key="once")

    assert (first, 1) == (again, len(bureau.lookups))


def test_after_five_failures_the_bureau_is_left_alone_and_then_asked_by_one(
    enriched: Enriched, bureau: FakeBureau
) -> None:
    """While the breaker is open answers come at once; one success closes it."""
    now = 0.0
    breaker = Breaker(failures=5, open_seconds=5.0, clock=lambda: now)
    enriched.breaker = lambda: breaker
    bureau.fault = "error 404"

    answers = enriched.ask(*[enriched.without_history()] * 8)
    turned_away = len(bureau.lookups)
    bureau.fault, now = "none", 5.1
    (healed,) = enriched.ask(enriched.without_history())

    assert 5 == turned_away
    assert [UNAVAILABLE] * 8 == [answer["reason_codes"] for answer in answers]
    assert enriched.metric("breaker_open")
    assert "APPROVED" == healed["decision"]
    assert not breaker.open


def test_a_body_that_is_wrong_elsewhere_is_refused_and_not_looked_up(enriched: Enriched, bureau: FakeBureau) -> None:
    """422 names what the sender can mend, not what would have been fetched."""
    with pytest.raises(InvalidApplicationError) as refused:
        enriched.ask(enriched.without_history(annual_income=-1.0))

    assert ["annual_income"] == [problem.field for problem in refused.value.problems]
    assert [] == bureau.lookups


def test_a_required_part_is_empty_where_it_cannot_be_fetched(bureau: FakeBureau) -> None:
    """A personal loan's credit history is required; without the bureau the request says that nothing is known."""
    bureau.fault = "error 500"
    enrichment = PERSONAL_LOAN.enrichment
    assert enrichment is not None
    body = json.dumps({name: value for name, value in PERSONAL_LOAN.example.items() if name != "credit_history"})

    async def complete() -> Intake:
        enricher = Enricher(Bureau(bureau.url, DEADLINE))
        assert None is enricher.whole(PERSONAL_LOAN, enrichment, body.encode())
        return await enricher.complete(PERSONAL_LOAN, enrichment, body.encode(), NOON.date())

    completed = asyncio.run(complete())

    assert (Routing.ENRICHMENT_UNAVAILABLE, ()) == (completed.fault, completed.fetched)
    assert {} == json.loads(completed.request)["credit_history"]
    assert None is completed.application.credit_history.score


class TestBreaker:
    """Tests for `Breaker`."""

    def test_it_opens_after_failures_in_a_row_only(self) -> None:
        """A success between them starts the count again."""
        breaker = Breaker(failures=2)
        breaker.failed()
        breaker.answered()
        breaker.failed()
        assert breaker.admits()
        breaker.failed()
        assert not breaker.admits()

    def test_one_caller_tries_and_a_failure_keeps_it_open(self) -> None:
        """The others are turned away meanwhile."""
        now = 0.0
        breaker = Breaker(failures=1, open_seconds=5.0, clock=lambda: now)
        breaker.failed()
        now = 5.0
        assert [True, False, False] == [breaker.admits() for _ in range(3)]
        now = 6.0
        breaker.failed()
        now = 10.9
        assert not breaker.admits()
        now = 11.0
        assert breaker.admits()
        breaker.answered()
        assert [True, True] == [breaker.admits() for _ in range(2)]


class TestDeclaration:
    """A portfolio says what may be fetched, and must be able to do without."""

    def test_an_unknown_field_is_refused(self, tiny: TinyLoans) -> None:
        """By name."""
        with pytest.raises(PortfolioError, match="no field 'bureau_report'"):
            replace(tiny.portfolio, enrichment=Enrichment("bureau_report", answer=tiny.portfolio.application))

    def test_a_required_field_that_cannot_be_empty_is_refused(self, tiny: TinyLoans) -> None:
        """Without the bureau no decision could be recorded."""
        with pytest.raises(PortfolioError, match="'annual_income' cannot be enriched"):
            replace(tiny.portfolio, enrichment=Enrichment("annual_income", answer=tiny.portfolio.application))
