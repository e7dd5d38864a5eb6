"""A decision that cannot be read back is 503 on every route: never an error that is not documented."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import structlog

from cde_serving.records.schema import records
from tests.serving.helpers import SCORE, Desk

DECISIONS = "/api/v1/credit/decisions"
KEY = {"idempotency-key": "k-1"}
REVIEW = {"reviewer": "A. Officer", "verdict": "REJECTED", "reason": "confirmed", "reason_codes": ["LOAN_TO_INCOME"]}
IS_DECISION = records.c.kind == "decision"
DAMAGED = "The recorded decision cannot be read: it was changed or its key is another"

# What reads a recorded decision, by its id: method, path, what is sent.
ABOUT_ONE: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/{}", {}),
    ("GET", "/{}/history", {}),
    ("GET", "/{}/notice", {}),
    ("GET", "/{}/notice.html", {}),
    ("GET", "/{}/explanation?kind=full", {}),
    ("POST", "/{}/review", {"json": REVIEW}),
    ("POST", "/{}/outcome", {"json": {"outcome": "repaid", "date": "2026-03-02"}}),
    ("GET", "", {"headers": KEY}),
]


def decided(desk: Desk) -> str:
    return str(desk.client.post(SCORE, json=desk.example, headers=KEY).json()["decision_id"])


def flip_a_byte(desk: Desk) -> None:
    with desk.scorer.log._write_engine.begin() as database:
        payload = bytearray(database.execute(sa.select(records.c.payload).where(IS_DECISION)).scalar_one())
        payload[-20] ^= 1
        database.execute(sa.update(records).where(IS_DECISION).values(payload=bytes(payload)))


@contextmanager
def without_records(desk: Desk) -> Iterator[None]:
    """The table is out of reach."""
    _rename(desk, records.name, "elsewhere")
    yield
    _rename(desk, "elsewhere", records.name)


def _rename(desk: Desk, old: str, new: str) -> None:
    with desk.scorer.log._write_engine.begin() as database:
        database.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))


def ask(desk: Desk, method: str, path: str, sent: dict[str, Any], decision_id: str) -> httpx.Response:
    return desk.client.request(method, DECISIONS + path.format(decision_id), **sent)


@pytest.mark.parametrize(("method", "path", "sent"), ABOUT_ONE)
def test_a_changed_decision_is_told_of_and_logged_by_its_id_alone(
    desk: Desk, method: str, path: str, sent: dict[str, Any]
):
    decision_id = decided(desk)
    flip_a_byte(desk)

    with structlog.testing.capture_logs() as lines:
        answered = ask(desk, method, path, sent, decision_id)

    assert (503, {"detail": DAMAGED}) == (answered.status_code, answered.json())
    assert "retry-after" not in answered.headers  # nothing heals it
    errors = [line for line in lines if line["log_level"] == "error"]
    assert [{"event": "a recorded decision cannot be read", "log_level": "error", "decision_id": decision_id}] == errors


def test_a_request_sent_again_is_told_that_its_decision_was_changed(desk: Desk):
    decided(desk)
    flip_a_byte(desk)

    alone = desk.client.post(SCORE, json=desk.example, headers=KEY)
    batch = {"applications": [{**desk.example, "idempotency_key": "k-1"}]}
    (item,) = desk.client.post(f"{SCORE}/batch", json=batch).json()["results"]

    assert (503, DAMAGED) == (alone.status_code, alone.json()["detail"])
    assert (503, DAMAGED) == (item["status"], item["detail"])


def test_a_changed_review_is_told_of_by_the_decisions_id(desk: Desk):
    decision_id = decided(desk)
    ask(desk, *ABOUT_ONE[5], decision_id)
    with desk.scorer.log._write_engine.begin() as database:
        database.execute(sa.update(records).where(records.c.kind == "review").values(payload=b"\0" * 64))

    with structlog.testing.capture_logs() as lines:
        answered = ask(desk, *ABOUT_ONE[1], decision_id)

    assert (503, DAMAGED) == (answered.status_code, answered.json()["detail"])
    assert decision_id in {line.get("decision_id") for line in lines}


@pytest.mark.parametrize(("method", "path", "sent"), ABOUT_ONE)
def test_a_log_that_cannot_be_read_is_503_with_a_time_to_come_again(
    desk: Desk, method: str, path: str, sent: dict[str, Any]
):
    decision_id = decided(desk)
    with without_records(desk):
        answered = ask(desk, method, path, sent, decision_id)

    assert (503, "5") == (answered.status_code, answered.headers["retry-after"])
    assert {"detail": "Decisions cannot be read at the moment"} == answered.json()


def test_what_was_answered_before_cannot_be_read_for_an_invalid_body(desk: Desk):
    decided(desk)
    wrong = json.dumps({**desk.example, "loan_amount": -1})
    with without_records(desk):
        answered = desk.client.post(SCORE, content=wrong, headers={**KEY, "content-type": "application/json"})

    assert (503, "5") == (answered.status_code, answered.headers["retry-after"])
