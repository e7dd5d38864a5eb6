"""Reviews and outcomes: what a person decided and what became of the loan, chained to the decision."""

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from cde_domain.portfolio import load_portfolio, shipped_portfolios
from cde_serving.decision_log import DecisionLog, ErasedError, KeyReusedError
from cde_serving.follow_ups import outcome_body
from cde_serving.records.chain import record_hash
from cde_serving.records.erasure import Eraser
from cde_serving.records.follow_ups import FollowUp, LoanResult, Reason, Review, UnknownDecisionError, encode
from cde_serving.records.schema import records
from cde_serving.records.verify import verify_log
from cde_serving.signing import TrustedKeys
from tests.serving.helpers import NOON, Desk, numbered, open_log

DECISIONS = "/api/v1/credit/decisions"
REJECTION = {
    "reviewer": "Jane Doe",
    "verdict": "REJECTED",
    "reason": "Payslips do not match the income",
    "reason_codes": ["LOAN_TO_INCOME", "TOTAL_BALANCE_UNKNOWN"],
}
REPAID = {"outcome": "repaid", "date": "2026-03-02"}


def review_of(number: int, about: int, **changes: Any) -> FollowUp:
    content = Review(
        record_id=f"{number:032x}",
        decision_id=f"{about:032x}",
        at="2026-03-02T12:00:00.000000Z",
        reviewer="Jane Doe",
        verdict="REJECTED",
        reason="Payslips do not match the income",
        reasons=(Reason("LOAN_TO_INCOME", "The loan is large for the income"),),
    )
    return FollowUp(content=content, answer=encode(content), portfolio="loans", **changes)


def outcome_of(number: int, about: int, **changes: Any) -> FollowUp:
    content = LoanResult(
        record_id=f"{number:032x}",
        decision_id=f"{about:032x}",
        at="2026-03-02T12:00:00.000000Z",
        outcome="defaulted",
        date="2026-03-01",
    )
    return FollowUp(content=content, answer=encode(content), portfolio="loans", **changes)


def problems_of(log: DecisionLog, folder: Path) -> tuple[str, ...]:
    trusted = TrustedKeys.read(folder / "log.pub")
    return verify_log(log.read_engine, folder / "checkpoints.jsonl", trusted).problems


async def followed(log: DecisionLog) -> None:
    """One decision with a review and two outcomes."""
    await log.record(numbered(1))
    for entry in (review_of(2, 1), outcome_of(3, 1), outcome_of(4, 1)):
        await log.follow_up(entry)


def test_a_review_and_outcomes_are_read_back_in_their_order(log_url: str, tmp_path: Path):
    with closing(open_log(tmp_path, log_url)) as log:
        asyncio.run(followed(log))
        known = log.follow_ups.about(f"{1:032x}")
        by_day = list(log.follow_ups.recorded_between("2026-03-02", "2026-03-03"))
        before = list(log.follow_ups.recorded_between("2026-03-01", "2026-03-02"))
        decisions = log.count(), len(list(log.store.all()))

    assert [review_of(2, 1).content, outcome_of(3, 1).content, outcome_of(4, 1).content] == list(known)
    assert [("default", one) for one in known] == by_day
    assert [] == before
    assert (1, 1) == decisions  # a review is no decision


@pytest.mark.parametrize(
    "changed", [{"about": f"{9:032x}"}, {"kind": "outcome"}, {"decision": "APPROVED"}, {"payload": b"other"}]
)
def test_a_changed_review_is_found_by_the_chain(tmp_path: Path, changed: dict[str, Any]):
    with closing(open_log(tmp_path)) as log:
        asyncio.run(followed(log))
    with closing(open_log(tmp_path)) as log:
        assert () == problems_of(log, tmp_path)
        with log._write_engine.begin() as database:
            database.execute(sa.update(records).where(records.c.sequence == 2).values(changed))

        assert "record 2" in problems_of(log, tmp_path)[0]


def test_a_removed_review_is_found_by_the_chain(tmp_path: Path):
    with closing(open_log(tmp_path)) as log:
        asyncio.run(followed(log))
        with log._write_engine.begin() as database:
            database.execute(sa.delete(records).where(records.c.kind == "review"))

        assert "lacks record 2" in problems_of(log, tmp_path)[0]


def test_records_of_the_first_format_still_verify(tmp_path: Path):
    """Their hash knows no decision that they are about, and needs none."""
    with closing(open_log(tmp_path)) as log:
        asyncio.run(log.record(numbered(1)))
        with log.read_engine.connect() as database:
            row = dict(database.execute(sa.select(records)).mappings().one())

    old = {**row, "format": 1}
    assert record_hash(old) == record_hash({name: value for name, value in old.items() if name != "about"})
    assert record_hash(row) != record_hash({**row, "about": f"{7:032x}"})


def test_nothing_follows_a_decision_that_does_not_exist_or_is_another_tenants(log_url: str, tmp_path: Path):
    with closing(open_log(tmp_path, log_url)) as log:
        asyncio.run(log.record(numbered(1)))
        for entry in (review_of(2, 9), review_of(3, 1, tenant="other")):
            with pytest.raises(UnknownDecisionError):
                asyncio.run(log.follow_up(entry))

        assert () == log.follow_ups.about(f"{1:032x}")


def test_an_erasure_covers_what_followed_the_decision(log_url: str, tmp_path: Path):
    async def erase_all(log: DecisionLog) -> None:
        await followed(log)
        await Eraser(log, "loans", retention_days=0, by="test", clock=lambda: NOON).erase("customer-1", at_once=True)

    with closing(open_log(tmp_path, log_url)) as log:
        asyncio.run(erase_all(log))
        with pytest.raises(ErasedError):
            log.follow_ups.about(f"{1:032x}")
        with pytest.raises(ErasedError):
            asyncio.run(log.follow_up(review_of(5, 1)))  # no new key is made for the erased customer
        assert [] == list(log.follow_ups.recorded_between("2026", "2027"))
    with closing(open_log(tmp_path, log_url)) as log:
        assert () == problems_of(log, tmp_path)


def test_what_cannot_be_recorded_stops_nothing_beside_it(tmp_path: Path):
    """A review of an unknown decision waits in one commit with others."""

    async def all_at_once(log: DecisionLog) -> list[Any]:
        await log.record(numbered(1))
        entries = [review_of(2, 1), review_of(3, 9), outcome_of(4, 1)]
        work = [log.follow_up(entry) for entry in entries] + [log.record(numbered(5))]
        return await asyncio.gather(*work, return_exceptions=True)

    with closing(open_log(tmp_path)) as log:
        results = asyncio.run(all_at_once(log))

        assert [bytes, UnknownDecisionError, bytes, bytes] == [type(result) for result in results]
        assert 2 == len(log.follow_ups.about(f"{1:032x}"))


def test_an_idempotency_key_records_a_review_once(log_url: str, tmp_path: Path):
    with closing(open_log(tmp_path, log_url)) as log:
        asyncio.run(log.record(numbered(1)))
        first = asyncio.run(log.follow_up(review_of(2, 1, idempotency_key="once", fingerprint="a")))
        again = asyncio.run(log.follow_up(review_of(3, 1, idempotency_key="once", fingerprint="a")))
        with pytest.raises(KeyReusedError):
            asyncio.run(log.follow_up(review_of(4, 1, idempotency_key="once", fingerprint="b")))

        assert first == again
        assert 1 == len(log.follow_ups.about(f"{1:032x}"))


def decided(desk: Desk) -> str:
    return str(desk.score().json()["decision_id"])


def follow(desk: Desk, decision_id: str, what: str, body: Any, **headers: str) -> httpx.Response:
    return desk.client.post(f"{DECISIONS}/{decision_id}/{what}", json=body, headers=headers)


def test_a_rejection_on_review_stands_beside_the_decision(desk: Desk):
    decision_id = decided(desk)
    before = desk.client.get(f"{DECISIONS}/{decision_id}").content

    answered = follow(desk, decision_id, "review", REJECTION)

    assert 201 == answered.status_code, answered.text
    assert ["The loan is large for the income", "Not known: sum of balances"] == [
        reason["text"] for reason in answered.json()["reasons"]
    ]
    history = desk.client.get(f"{DECISIONS}/{decision_id}/history").json()
    assert ("APPROVED", "REJECTED") == (history["decision"], history["standing"])
    assert [answered.json()] == history["reviews"]
    assert before == desk.client.get(f"{DECISIONS}/{decision_id}").content


def test_a_correction_appends_and_the_last_one_stands(desk: Desk):
    decision_id = decided(desk)
    for outcome in ("defaulted", "repaid"):
        assert 201 == follow(desk, decision_id, "outcome", {**REPAID, "outcome": outcome}).status_code

    history = desk.client.get(f"{DECISIONS}/{decision_id}/history").json()

    assert "repaid" == history["outcome"]
    assert ["defaulted", "repaid"] == [one["outcome"] for one in history["outcomes"]]


def test_the_portfolios_own_words_for_an_outcome_are_understood(desk: Desk):
    decision_id = decided(desk)

    assert "repaid" == follow(desk, decision_id, "outcome", {**REPAID, "outcome": "good"}).json()["outcome"]


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("review", {**REJECTION, "reason_codes": []}, "reason_codes"),
        ("review", {**REJECTION, "reason_codes": ["LOAN_TO_INCOME"] * 5}, "reason_codes"),
        ("review", {**REJECTION, "reason_codes": ["INTERNAL_POLICY"]}, "reason_codes.0"),
        ("review", {**REJECTION, "reason_codes": ["LOAN_TO_INCOME"] * 2}, "reason_codes.1"),
        ("review", {**REJECTION, "verdict": "APPROVED"}, "reason_codes"),
        ("review", {**REJECTION, "reviewer": " "}, "reviewer"),
        ("review", {**REJECTION, "reviewer": "Jane\u202eDoe"}, "reviewer"),
        ("review", {**REJECTION, "reviewer": "Jane\x1b[2J"}, "reviewer"),
        ("review", {**REJECTION, "reviewer": "Jane\nDoe"}, "reviewer"),
        ("review", {**REJECTION, "reason": "Ring\x07"}, "reason"),
        ("review", {**REJECTION, "reason": "Genuine\rForged"}, "reason"),
        ("review", {**REJECTION, "reason": "Next\x85"}, "reason"),
        ("review", {**REJECTION, "verdict": "MANUAL_REVIEW"}, "verdict"),
        ("review", {**REJECTION, "colour": "blue"}, "colour"),
        ("outcome", {**REPAID, "outcome": "late"}, "outcome"),
        ("outcome", {**REPAID, "date": "2026-03-03"}, "date"),
        ("outcome", {**REPAID, "date": "2026-03-01"}, "date"),
        ("outcome", {"outcome": "repaid"}, "date"),
    ],
)
def test_a_follow_up_that_cannot_be_used_names_its_field_and_changes_nothing(
    desk: Desk, what: str, body: dict[str, Any], field: str
):
    decision_id = decided(desk)

    refused = follow(desk, decision_id, what, body)

    assert 422 == refused.status_code, refused.text
    assert [field] == [problem["field"] for problem in refused.json()["detail"]]
    history = desk.client.get(f"{DECISIONS}/{decision_id}/history").json()
    assert ([], []) == (history["reviews"], history["outcomes"])


def test_a_key_gets_the_same_review_again_and_no_other(desk: Desk):
    decision_id, other = decided(desk), decided(desk)
    first = follow(desk, decision_id, "review", REJECTION, **{"Idempotency-Key": "r1"})

    assert first.content == follow(desk, decision_id, "review", REJECTION, **{"Idempotency-Key": "r1"}).content
    changed = follow(desk, decision_id, "review", {**REJECTION, "reviewer": "Joe"}, **{"Idempotency-Key": "r1"})
    elsewhere = follow(desk, other, "review", REJECTION, **{"Idempotency-Key": "r1"})
    assert [422, 422] == [changed.status_code, elsewhere.status_code]
    assert 1 == len(desk.client.get(f"{DECISIONS}/{decision_id}/history").json()["reviews"])


def test_what_is_unknown_is_404_and_what_is_erased_410(desk: Desk):
    decision_id = decided(desk)
    for unknown in ("0" * 32, "nonsense"):
        assert 404 == follow(desk, unknown, "review", REJECTION).status_code
        assert 404 == desk.client.get(f"{DECISIONS}/{unknown}/history").status_code
    asyncio.run(Eraser(desk.scorer.log, "tiny_loans", retention_days=0, by="t").erase("customer-1", at_once=True))

    assert 410 == follow(desk, decision_id, "review", REJECTION).status_code
    assert 410 == desk.client.get(f"{DECISIONS}/{decision_id}/history").status_code


def test_nothing_becomes_of_a_loan_that_was_not_made(desk: Desk):
    """Unless a person decides otherwise."""
    decision_id = decided(desk)
    follow(desk, decision_id, "review", REJECTION)

    refused = follow(desk, decision_id, "outcome", REPAID)

    assert (422, "nothing_lent") == (refused.status_code, refused.json()["detail"][0]["type"])
    assert [] == desk.client.get(f"{DECISIONS}/{decision_id}/history").json()["outcomes"]
    follow(desk, decision_id, "review", {**REJECTION, "verdict": "APPROVED", "reason_codes": []})
    assert 201 == follow(desk, decision_id, "outcome", REPAID).status_code


def test_a_reviewers_reason_may_have_lines_and_tabs(desk: Desk):
    reason = "Seen:\n\tpayslip\r\n\tcontract"

    answered = follow(desk, decided(desk), "review", {**REJECTION, "reason": reason})

    assert (201, reason) == (answered.status_code, answered.json()["reason"])


@pytest.mark.parametrize("name", shipped_portfolios())
def test_every_shipped_portfolios_words_for_an_outcome_are_understood(name: str):
    label = load_portfolio(name).outcome

    for outcome in ("repaid", "defaulted", label.good, label.bad):
        body = json.dumps({"outcome": outcome, "date": "2026-03-01"})
        assert outcome == outcome_body(label.good, label.bad).model_validate_json(body).outcome
