"""`POST /api/v1/credit/score/batch`: an answer or an error for each, recorded as if each came alone."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cde_domain.portfolio import Enrichment
from cde_serving import batch as batches
from cde_serving.decision_log import LogBusyError, LogUnavailableError
from cde_serving.enrichment import Bureau, Enricher
from cde_serving.experiments import Participant
from cde_serving.kill_switch import turn
from tests.serving.fake_bureau import running_bureau
from tests.serving.helpers import EVIDENCE, SCORE, Desk, Releases, wait_for
from tests.support import NAME

BATCH = "/api/v1/credit/score/batch"
JSON = {"content-type": "application/json"}
VARIED = [
    {"annual_income": 20_000.0 + 1_000 * step, "loan_amount": 9_000.0, "loan_purpose": purpose}
    for step, purpose in enumerate(["car", "wedding", "other"] * 7)
]


def send(desk: Desk, applications: Any, **headers: str) -> httpx.Response:
    return desk.client.post(BATCH, json={"applications": applications}, headers=headers)


def applications(desk: Desk, changes: list[dict[str, Any]] = VARIED) -> list[dict[str, Any]]:
    return [{**desk.example, **change, "customer_id": f"c-{place}"} for place, change in enumerate(changes)]


def without_names(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "decision_id"}


def test_a_batch_is_answered_like_its_applications_one_by_one(desk: Desk):
    bodies = applications(desk)

    answered = send(desk, bodies)

    assert 200 == answered.status_code, answered.text
    results = answered.json()["results"]
    assert [(place, 200) for place in range(len(bodies))] == [(one["index"], one["status"]) for one in results]
    alone = [desk.client.post(SCORE, json=body).json() for body in bodies]
    assert [without_names(one) for one in alone] == [without_names(one["answer"]) for one in results]


def test_every_answer_of_a_batch_is_recorded_byte_for_byte(desk: Desk):
    answered = send(desk, applications(desk))

    recorded = {record_id: record.payload.answer for record_id, record in desk.scorer.log.store.all() if record}
    assert len(VARIED) == len(recorded)
    for result in answered.json()["results"]:
        answer = recorded[result["answer"]["decision_id"]]
        assert answer in answered.content
        assert desk.client.get(f"/api/v1/credit/decisions/{result['answer']['decision_id']}").content == answer


def test_an_application_that_is_none_stops_no_other(desk: Desk):
    good = applications(desk, VARIED[:3])
    bad = [
        {**good[0], "loan_purpose": "yacht"},
        {**good[0], "annual_income": -1},
        [],
        {**good[0], "idempotency_key": "two words"},
    ]

    answered = send(desk, [good[0], *bad, good[1]]).json()

    assert 2 == answered["answered"] == desk.scorer.log.count()
    assert [200, 422, 422, 422, 400, 200] == [one["status"] for one in answered["results"]]
    fields = [[problem["field"] for problem in one["detail"]] for one in answered["results"][1:4]]
    assert [["loan_purpose"], ["annual_income"], ["body"]] == fields


def test_a_batch_that_is_sent_again_with_its_key_decides_only_what_was_not_decided(desk: Desk):
    bodies = applications(desk, VARIED[:3])
    key = {"Idempotency-Key": "monday"}
    first = send(desk, bodies[:2], **key).json()["results"]

    again = send(desk, bodies, **key).json()["results"]

    assert first == again[:2]
    assert 3 == desk.scorer.log.count()
    changed = send(desk, [bodies[1], bodies[1], bodies[2]], **key).json()["results"]
    assert [422, 200, 200] == [one["status"] for one in changed]


def test_an_applications_own_key_is_that_of_a_single_request(desk: Desk):
    (body,) = applications(desk, VARIED[:1])
    alone = desk.client.post(SCORE, json=body, headers={"Idempotency-Key": "mine"}).json()

    (result,) = send(desk, [{**body, "idempotency_key": "mine"}]).json()["results"]

    assert alone == result["answer"]
    assert 1 == desk.scorer.log.count()


def test_a_key_given_twice_in_a_batch_is_one_request_sent_twice(desk: Desk):
    body, other, wrong = ({**one, "idempotency_key": "mine"} for one in applications(desk, VARIED[:3]))
    wrong["loan_amount"] = -1

    for _ in range(2):
        refused, first, again, reused = send(desk, [wrong, body, body, other]).json()["results"]

        assert [200, 200] == [first["status"], again["status"]]
        assert first["answer"] == again["answer"]
        assert (422, "idempotency_key_reused") == (reused["status"], reused["detail"][0]["type"])
        assert 422 == refused["status"]
        assert 1 == desk.scorer.log.count()


def test_a_tenant_that_sends_many_batches_leaves_room_for_others(desk: Desk):
    scorer = batches.BatchScorer(desk.scorer)
    body = json.dumps({"applications": [desk.example]}).encode()

    async def one_of(tenant: str) -> list[bytes | Exception]:
        with scorer.place(tenant):
            return await scorer.score(body, tenant=tenant)

    async def all_at_once() -> list[Any]:
        tenants = ["retail"] * 5 + ["other"]
        return await asyncio.gather(*(one_of(tenant) for tenant in tenants), return_exceptions=True)

    answered = asyncio.run(all_at_once())

    assert [list, list, LogBusyError, LogBusyError, LogBusyError, list] == [type(one) for one in answered]
    assert [list] == [type(asyncio.run(one_of("retail")))]


def test_no_more_batches_are_read_than_have_a_place(desk: Desk):
    """A hundred clients that hold back the last bytes of eight megabytes took six hundred of memory."""
    headers = {**desk.client.headers, **JSON}
    scope = {
        "type": "http",
        "method": "POST",
        "path": BATCH,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    read, answered = [], []

    async def never_whole(client: int) -> None:
        async def receive() -> Any:
            read.append(client)
            await asyncio.sleep(0 if read.count(client) == 1 else 60)
            return {"type": "http.request", "body": b"{", "more_body": True}

        async def send(message: Any) -> None:
            if "status" in message:
                answered.append((client, message["status"]))

        await desk.client.app(dict(scope), receive, send)  # type: ignore[arg-type]

    async def five() -> tuple[int, int]:
        clients = [asyncio.create_task(never_whole(client)) for client in range(5)]
        await asyncio.sleep(0.2)
        busy = await desk.client.send("POST", BATCH, json={"applications": [desk.example]})
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        freed = await desk.client.send("POST", BATCH, json={"applications": [desk.example]})
        return busy.status_code, freed.status_code

    assert (503, 200) == asyncio.run(five())
    assert {0, 1} == set(read)
    assert [(2, 503), (3, 503), (4, 503)] == [told for told in answered if told[1] != 499]


def test_a_record_that_cannot_be_written_fails_its_item_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    record = desk.scorer.log.record

    async def failing(one: Any) -> bytes:
        if one.payload.customer_id == "c-1":
            raise LogUnavailableError("the disk is full")
        return await record(one)

    monkeypatch.setattr(desk.scorer.log, "record", failing)

    results = send(desk, applications(desk, VARIED[:3])).json()["results"]

    assert [200, 503, 200] == [one["status"] for one in results]
    assert "answer" not in results[1]


def test_an_application_that_the_portfolios_code_fails_on_takes_no_other_with_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    engine = desk.scorer.releases.serving.engine  # type: ignore[union-attr]
    decide_all = type(engine).decide_all

    def failing(self: Any, given: Any, applied_at: Any) -> Any:
        if any(one.customer_id == "c-1" for one in given):
            raise ZeroDivisionError
        return decide_all(self, given, applied_at)

    monkeypatch.setattr(type(engine), "decide_all", failing)

    results = send(desk, applications(desk, VARIED[:3])).json()["results"]

    assert [200, 200, 200] == [one["status"] for one in results]
    assert ("MANUAL_REVIEW", ["DECISION_FAILED"]) == (
        results[1]["answer"]["decision"],
        results[1]["answer"]["reason_codes"],
    )
    assert not {"DECISION_FAILED"} & {code for one in results[::2] for code in one["answer"]["reason_codes"]}


def test_a_batch_is_stopped_as_single_applications_are(desk: Desk):
    asyncio.run(turn(desk.scorer.log, NAME, "stop_auto", by="person:officer"))
    wait_for(lambda: desk.scorer.switch.stopped, 2)

    results = send(desk, applications(desk, VARIED)).json()["results"]

    assert {"MANUAL_REVIEW"} == {one["answer"]["decision"] for one in results}
    assert "AUTOMATIC_DECISIONS_STOPPED" in {code for one in results for code in one["answer"]["reason_codes"]}


def test_a_customer_has_one_variant_in_a_batch_and_alone(desk: Desk, releases: Releases, bundles: tuple[Path, Path]):
    challenger = releases.store.bundles / bundles[1].name
    shutil.copytree(bundles[1], challenger)
    part = Participant(bundle=challenger.name, evidence=EVIDENCE)
    releases.store.experiments.start("autumn", portfolio=NAME, challenger=part, weight=0.5, by="test", key=releases.key)
    plan = desk.scorer.plan
    assert plan is not None
    wait_for(lambda: plan.plan.weight == 0.5, 2)
    asked = [{**desk.example, "customer_id": f"customer-{number}"} for number in range(40)]

    alone = [desk.client.post(SCORE, json=one).json() for one in asked]
    together = [one["answer"] for one in send(desk, asked).json()["results"]]

    assert {"champion", "challenger"} == {one["variant"] for one in together}
    for name in ("variant", "model_version", "score", "customer_id"):
        assert [one[name] for one in alone] == [one[name] for one in together]


def test_a_batch_asks_the_bureau_for_what_its_applications_leave_out(desk: Desk):
    served = desk.scorer.releases.serving
    assert served is not None
    model = type(served.portfolio.application.model_validate_json(json.dumps(desk.example)).credit_history)
    served.engine.portfolio = replace(served.portfolio, enrichment=Enrichment("credit_history", answer=model))
    without = {name: value for name, value in desk.example.items() if name != "credit_history"}
    with running_bureau() as bureau:
        desk.scorer.enricher = Enricher(Bureau(bureau.url, 0.5))
        (whole, fetched, wrong) = send(desk, [desk.example, without, {**without, "loan_amount": -1}]).json()["results"]

    assert (200, 200, 422) == (whole["status"], fetched["status"], wrong["status"])
    assert "APPROVED" == fetched["answer"]["decision"]
    assert ["customer-1"] == [lookup["customer_id"] for lookup in bureau.lookups]


def test_a_batch_that_a_slow_bureau_holds_up_goes_on_where_it_stopped(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """A thousand lookups may take longer than a request may: nobody is looked up again for it."""
    monkeypatch.setattr(batches, "BATCH_SECONDS", 0.5)
    monkeypatch.setattr(batches, "AT_ONCE", 8)
    monkeypatch.setattr(batches, "RECORDED_AT_ONCE", 8)
    served = desk.scorer.releases.serving
    assert served is not None
    model = type(served.portfolio.application.model_validate_json(json.dumps(desk.example)).credit_history)
    served.engine.portfolio = replace(served.portfolio, enrichment=Enrichment("credit_history", answer=model))
    asked = [{name: value for name, value in one.items() if name != "credit_history"} for one in applications(desk)] * 2
    asked = [{**one, "customer_id": f"c-{place}"} for place, one in enumerate(asked)]

    async def until_all_are_answered() -> list[list[dict[str, Any]]]:
        desk.scorer.enricher = Enricher(Bureau(bureau.url, 2.0))
        tries: list[list[dict[str, Any]]] = []
        while not tries or (len(tries) < 20 and any(one["status"] != 200 for one in tries[-1])):
            answered = await desk.client.send(
                "POST", BATCH, json={"applications": asked}, headers={"Idempotency-Key": "k"}
            )
            assert 200 == answered.status_code
            tries.append(answered.json()["results"])
        return tries

    with running_bureau() as bureau:
        bureau.seconds = 0.15
        tries = asyncio.run(until_all_are_answered())

    first, last = tries[0], tries[-1]
    reached = sum(one["status"] == 200 for one in first)
    assert 0 < reached < len(asked)
    assert [200] * reached + [503] * (len(asked) - reached) == [one["status"] for one in first]
    assert "nothing was decided" in first[-1]["detail"]
    assert {"APPROVED", "REJECTED", "MANUAL_REVIEW"} >= {one["answer"]["decision"] for one in last}
    assert not any("ENRICHMENT_UNAVAILABLE" in one["answer"]["reason_codes"] for one in last)
    assert first[:reached] == last[:reached]
    assert len(asked) == desk.scorer.log.count()
    assert len(bureau.lookups) <= len(asked) + 8 * (len(tries) - 1)  # but for those that the end of a try cut off


def test_a_batch_whose_turn_does_not_come_is_told_to_come_again(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batches, "BATCH_SECONDS", 0.3)
    scorer = batches.BatchScorer(desk.scorer)
    body = json.dumps({"applications": [desk.example]}).encode()

    async def two() -> list[bytes | Exception]:
        with contextlib.closing(sqlite3.connect(tmp_path / "decisions.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            first = asyncio.create_task(scorer.score(body))
            await asyncio.sleep(0.1)
            with pytest.raises(LogBusyError, match="too long"):
                await scorer.score(body, tenant="other")
            other.execute("ROLLBACK")
        return await first

    assert [bytes] == [type(one) for one in asyncio.run(two())]
    assert 1 == desk.scorer.log.count()


def test_nothing_promoted_answers_no_batch(open_desk: Any, releases: Releases):
    assert 503 == send(open_desk(releases), [{}]).status_code


def test_single_requests_are_answered_while_a_large_batch_is(desk: Desk):
    """No part of a batch holds the event loop for long."""

    async def both() -> int:
        body = {"applications": applications(desk, VARIED * 20)}
        working = asyncio.create_task(desk.client.send("POST", BATCH, json=body))
        turns = 0
        while not working.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert 200 == (await working).status_code
        return turns

    turns = asyncio.run(both())

    assert turns > len(VARIED) * 20 / batches.AT_ONCE
