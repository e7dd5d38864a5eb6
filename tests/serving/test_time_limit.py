"""No request is left without an answer of ours: at the time limit it is told what is known of its outcome."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cde_serving import observed
from cde_serving.access.headers import SECURITY
from tests.serving.asking import DECISIONS
from tests.serving.helpers import SCORE, Desk

KEY = {"Idempotency-Key": "monday-1"}


def test_a_decision_that_takes_too_long_to_record_is_found_by_its_key(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """504 with what every answer carries; the record is committed later, and nothing is decided twice."""
    monkeypatch.setattr(observed, "ANSWER_SECONDS", 0.3)

    async def asked() -> list[Any]:
        with closing(sqlite3.connect(tmp_path / "decisions.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            late = await desk.client.send("POST", SCORE, json=desk.example, headers=KEY)
            other.execute("ROLLBACK")
        for _ in range(100):
            found = await desk.client.send("GET", DECISIONS, headers=KEY)
            if found.status_code == 200:
                break
            await asyncio.sleep(0.05)
        return [late, found, await desk.client.send("POST", SCORE, json=desk.example, headers=KEY)]

    with capture_logs() as lines:
        late, found, again = asyncio.run(asked())

    assert (504, "1") == (late.status_code, late.headers["retry-after"])
    assert "Idempotency-Key" in late.json()["detail"]
    assert {"x-request-id", *(name.decode() for name, _ in SECURITY)} <= set(late.headers)
    assert [("warning", 504)] == [(line["log_level"], line["status"]) for line in lines if line.get("status") == 504]
    assert f'route="{SCORE}",status="504"' in desk.client.get("/metrics").text
    assert 200 == again.status_code
    assert found.content == again.content
    assert 1 == desk.scorer.log.count()


def test_a_client_that_reads_slowly_gets_the_whole_answer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on when an answer begins."""
    monkeypatch.setattr(observed, "ANSWER_SECONDS", 0.2)
    body = json.dumps(desk.example).encode()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)
        await asyncio.sleep(0.3)

    headers = [(name.encode(), value.encode()) for name, value in desk.client.headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": SCORE,
        "query_string": b"",
        "headers": [*headers, (b"content-type", b"application/json")],
    }
    asyncio.run(desk.client.app(scope, receive, send))  # type: ignore[arg-type]

    assert [200] == [message["status"] for message in sent if "status" in message]
    assert b"decision_id" in sent[-1]["body"]


@pytest.mark.parametrize("path", [SCORE, SCORE + "/batch", f"{DECISIONS}/{'0' * 32}/review"])
def test_an_application_that_never_came_whole_is_known_not_to_be_decided(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """408 (RFC 9110, section 15.5.9), rather than that nobody knows; the connection has no next request."""
    monkeypatch.setattr(observed, "ANSWER_SECONDS", 0.2)
    begun: list[Any] = []

    async def receive() -> Any:
        if begun:
            await asyncio.sleep(5)
        begun.append(path)
        return {"type": "http.request", "body": json.dumps(desk.example).encode(), "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in desk.client.headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [*headers, (b"content-type", b"application/json")],
    }
    asyncio.run(desk.client.app(scope, receive, send))  # type: ignore[arg-type]

    assert [408] == [message["status"] for message in sent if "status" in message]
    assert (b"connection", b"close") in sent[0]["headers"]
    assert b"nothing was recorded" in sent[1]["body"]
    assert 0 == desk.scorer.log.count()


def test_every_guarded_route_says_so_in_its_description(desk: Desk) -> None:
    """As schemathesis and generated clients read it."""
    operations = [
        operation for path in desk.client.get("/openapi.json").json()["paths"].values() for operation in path.values()
    ]

    guarded = [operation for operation in operations if operation.get("x-scope")]
    assert 10 == len(guarded)
    assert all("Retry-After" in operation["responses"]["504"]["headers"] for operation in guarded)
    assert all(("408" in operation["responses"]) == ("requestBody" in operation) for operation in guarded)
