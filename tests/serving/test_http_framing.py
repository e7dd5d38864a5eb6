"""What a request may be before it is read: whole, of one key and not compressed."""

import asyncio
import gzip
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.serving.helpers import SCORE, Desk, Server, start_server
from tests.support import TinyLoans

BATCH = SCORE + "/batch"
OF_A_DECISION = "/api/v1/credit/decisions/" + "0" * 32
JSON = {"content-type": "application/json"}
POSTS = [SCORE, BATCH, OF_A_DECISION + "/review", OF_A_DECISION + "/outcome"]


def sent_and_left(desk: Desk, path: str, body: bytes) -> list[Any]:
    """What is sent to a client that announced more than a body, and left."""
    received = iter([{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}])
    answered: list[Any] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        answered.append(message)

    headers = {**desk.client.headers, **JSON, "content-length": str(len(body) + 1)}
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(desk.client.app(scope, receive, send))  # type: ignore[arg-type]
    return answered


@pytest.mark.parametrize("path", POSTS)
def test_a_client_that_left_before_its_body_ended_is_not_decided_on(desk: Desk, path: str) -> None:
    """What came may be an application by chance; it is told as 499."""
    item = json.dumps(desk.example)

    answered = sent_and_left(desk, path, (f'{{"applications": [{item}]}}' if path == BATCH else item).encode())

    assert [499] == [message["status"] for message in answered if message["type"] == "http.response.start"]
    assert 0 == desk.scorer.log.count()
    page = desk.client.get("/metrics").text
    assert 'status="499"' in page
    assert 'status="500"' not in page


def test_a_server_decides_nothing_for_a_client_that_left(server: Server) -> None:
    """Over a real connection: the Content-Length promises a byte more than came."""
    head = (
        f"POST {SCORE} HTTP/1.1\r\nHost: desk\r\nAuthorization: Bearer {server.key}\r\nContent-Type: application/json"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(f"{head}\r\nContent-Length: 3\r\n\r\n{{}}".encode())
    told = f'route="{SCORE}",status="499"'
    deadline = time.monotonic() + 3
    while told not in server.client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_clients_that_left_before_their_bodies_ended_hold_up_no_stop(tiny: TinyLoans, tmp_path: Path) -> None:
    """The service waits for the answers that it began, and these are none."""
    server = start_server(tiny, tmp_path)
    head = f"POST {SCORE} HTTP/1.1\r\nHost: desk\r\nAuthorization: Bearer {server.key}\r\n"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 900\r\n\r\n{{".encode())
    time.sleep(0.5)
    began = time.monotonic()

    status = server.stop()

    assert 0 == status
    assert time.monotonic() - began < 6


def test_what_is_no_http_is_told_in_one_line(server: Server) -> None:
    """uvicorn's logger and the root had a handler each."""
    told = "Invalid HTTP request received."
    before = server.output.read_text().count(told)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert b" 400 " in client.recv(100)
    server.client.get("/health")

    assert before + 1 == server.output.read_text().count(told)


@pytest.mark.parametrize(("method", "path"), [*(("POST", path) for path in POSTS), ("GET", OF_A_DECISION[:-33])])
def test_of_two_idempotency_keys_none_is_taken(desk: Desk, method: str, path: str) -> None:
    """Client, proxy and service might each believe another one."""
    keys = [("idempotency-key", "k-1"), ("idempotency-key", "k-2")]

    refused = desk.client.request(method, path, content=json.dumps(desk.example), headers=[*JSON.items(), *keys])

    assert 400 == refused.status_code
    assert "once" in refused.json()["detail"]
    assert 0 == desk.scorer.log.count()


@pytest.mark.parametrize("path", POSTS)
def test_a_compressed_body_is_refused_by_name(desk: Desk, path: str) -> None:
    """415, as RFC 9110 (section 15.5.16) has it, with what is read instead."""
    body = gzip.compress(json.dumps(desk.example).encode())

    refused = desk.client.post(path, content=body, headers={**JSON, "content-encoding": "gzip"})

    assert (415, "identity") == (refused.status_code, refused.headers["accept-encoding"])
    assert "Content-Encoding" in refused.json()["detail"]


def test_a_body_that_is_said_to_be_as_it_is_is_read(desk: Desk) -> None:
    """`identity` is no compression."""
    headers = {**JSON, "content-encoding": "Identity"}

    assert 200 == desk.client.post(SCORE, content=json.dumps(desk.example), headers=headers).status_code


def test_a_batch_that_asks_for_explanations_is_told_that_it_gets_none(desk: Desk) -> None:
    """Rather than decided without them."""
    refused = desk.client.post(BATCH + "?explain=full", json={"applications": [desk.example]})

    assert (422, ["explain"]) == (refused.status_code, [problem["field"] for problem in refused.json()["detail"]])
    assert 0 == desk.scorer.log.count()
