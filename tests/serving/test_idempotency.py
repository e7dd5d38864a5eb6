"""Tests for `Idempotency-Key`: one request, one decision, however often it is sent."""

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from cde_serving.decision_log import KeyReusedError
from tests.serving.helpers import RECORD, SCORE, Desk, Releases, numbered, open_log

DECISIONS = "/api/v1/credit/decisions"
Bundles = tuple[Path, Path]


def send(desk: Desk, key: str, **changes: Any) -> httpx.Response:
    """Post the example with changed fields under a key."""
    return desk.client.post(SCORE, json={**desk.example, **changes}, headers={"idempotency-key": key})


def find(desk: Desk, key: str) -> httpx.Response:
    """Ask what became of a key."""
    return desk.client.request("GET", DECISIONS, headers={"idempotency-key": key})


def test_the_same_request_gets_the_same_bytes(desk: Desk) -> None:
    """A client that sends again is given the decision that it has."""
    first, again = send(desk, "k-1"), send(desk, "k-1")

    assert (200, 200) == (first.status_code, again.status_code)
    assert first.content == again.content
    assert 1 == desk.scorer.log.count()


def test_spaces_and_order_do_not_make_another_request(desk: Desk) -> None:
    """The body counts, not how it is written."""
    first = send(desk, "k-1")
    body = json.dumps(dict(reversed(desk.example.items())), indent=4)

    again = desk.client.post(
        SCORE, content=body, headers={"idempotency-key": "k-1", "content-type": "application/json"}
    )

    assert first.content == again.content


def test_a_key_used_for_another_request_is_refused(desk: Desk) -> None:
    """422 names the header, and nothing is decided."""
    send(desk, "k-1")

    answer = send(desk, "k-1", loan_amount=5001.0)

    assert (422, ["Idempotency-Key"]) == (answer.status_code, [problem["field"] for problem in answer.json()["detail"]])
    assert 1 == desk.scorer.log.count()


def test_an_answered_key_is_answered_to_all_who_ask_again_at_once(desk: Desk) -> None:
    """Nobody is told that it is in progress: the same body gets the same bytes, another is refused."""
    first = send(desk, "k-1")

    async def again() -> list[httpx.Response]:
        bodies = [{**desk.example, "loan_amount": 5000.0 + number % 2} for number in range(16)]
        return await asyncio.gather(
            *(desk.client.send("POST", SCORE, json=body, headers={"idempotency-key": "k-1"}) for body in bodies)
        )

    answers = asyncio.run(again())

    assert {first.content} == {answer.content for answer in answers[::2]}
    assert {422} == {answer.status_code for answer in answers[1::2]}


def test_without_a_key_every_request_is_decided(desk: Desk) -> None:
    """Two applications may be alike."""
    assert desk.score().content != desk.score().content
    assert 2 == desk.scorer.log.count()


def test_a_refused_request_does_not_use_up_its_key(desk: Desk) -> None:
    """After a 422 the mended application may be sent under the same key."""
    assert 422 == send(desk, "k-1", annual_income=-1.0).status_code
    assert 200 == send(desk, "k-1").status_code


def test_an_answer_outlives_the_model_that_gave_it(desk: Desk, releases: Releases, bundles: Bundles) -> None:
    """After a promotion the same key still gets the old answer, and another key the new model's."""
    first = send(desk, "k-1")
    releases.promote(bundles[1])
    desk.scorer.releases.refresh()

    assert first.content == send(desk, "k-1").content
    assert first.json()["model_version"] != send(desk, "k-2").json()["model_version"]


def test_an_answer_outlives_the_application_form_that_asked_for_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that today's service refuses is answered as before, if it was decided."""
    first = send(desk, "k-1")
    monkeypatch.setattr(desk.scorer.releases, "serving", None)

    assert first.content == send(desk, "k-1").content
    assert 422 == send(desk, "k-1", loan_amount=1.0).status_code
    assert 503 == send(desk, "k-2").status_code


def test_a_request_in_progress_is_not_decided_twice(desk: Desk) -> None:
    """Of many at once under one key, one is decided and the others are told to wait or given its bytes."""

    async def send_all() -> list[httpx.Response]:
        requests = [
            desk.client.send("POST", SCORE, json=desk.example, headers={"idempotency-key": "k-1"}) for _ in range(64)
        ]
        return await asyncio.gather(*requests)

    answers = asyncio.run(send_all())

    assert {200, 409} >= {answer.status_code for answer in answers}
    assert 1 == len({answer.content for answer in answers if answer.status_code == 200})
    assert 1 == desk.scorer.log.count()
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 409)


def test_a_key_in_progress_is_told_as_such(desk: Desk) -> None:
    """A client that timed out and asks at once learns that it is not over yet."""
    token = desk.scorer.log.master.token("idempotency key", "default", "k-1")
    desk.scorer.log.writer._in_progress.add(token)

    assert (409, 409) == (find(desk, "k-1").status_code, send(desk, "k-1").status_code)


def test_a_client_that_timed_out_finds_its_decision_by_its_key(desk: Desk) -> None:
    """GET tells what became of a request: decided, or never."""
    answered = send(desk, "k-1")

    assert answered.content == find(desk, "k-1").content
    assert 404 == find(desk, "k-2").status_code


@pytest.mark.parametrize("key", ["", "a" * 256, "two words", "tab\t"])
def test_a_key_that_cannot_be_used_is_refused(desk: Desk, key: str) -> None:
    """400 rather than a decision that could not be found again."""
    assert (400, 400) == (send(desk, key).status_code, find(desk, key).status_code)
    assert 0 == desk.scorer.log.count()


def test_keys_are_kept_only_as_tokens(desk: Desk, tmp_path: Path) -> None:
    """A key may name the customer, so the database does not hold it."""
    send(desk, "order-of-Jane-Doe")
    desk.scorer.log.close()

    assert not any(b"Jane-Doe" in path.read_bytes() for path in tmp_path.rglob("decisions.sqlite*"))


def test_two_services_decide_a_key_once(log_url: str, tmp_path: Path) -> None:
    """Whoever commits second gives the answer of the first."""
    with closing(open_log(tmp_path, log_url)) as first, closing(open_log(tmp_path, log_url)) as second:

        def keyed(service: int, number: int, fingerprint: str = "same") -> Any:
            payload = RECORD.payload.__replace__(answer=f"{service}-{number}".encode())
            return numbered(
                service * 1000 + number, payload=payload, idempotency_key=f"k-{number}", fingerprint=fingerprint
            )

        async def race() -> list[tuple[bytes, bytes]]:
            return [
                tuple(await asyncio.gather(first.record(keyed(1, n)), second.record(keyed(2, n)))) for n in range(50)
            ]

        answers = asyncio.run(race())

        assert all(one == other for one, other in answers)
        assert 50 == first.count()
        with pytest.raises(KeyReusedError):
            asyncio.run(second.record(keyed(3, 7, "another")))


def test_a_server_that_comes_back_knows_its_keys(
    open_desk: Callable[[Releases], Desk], releases: Releases, bundles: Bundles
) -> None:
    """Keys last as long as the records, not as long as the process."""
    releases.promote(bundles[0])
    before = open_desk(releases)
    first = send(before, "k-1")
    before.scorer.close()

    assert first.content == send(open_desk(releases), "k-1").content
