"""What a client does beside asking: it offers other protocols and trailers, never ends, or takes no answer."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cde_serving.plain_http import LEAVING_SECONDS
from tests.serving.helpers import SCORE, Server, start_server
from tests.support import TinyLoans

WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
HTTP_2 = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAA\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: desk\r\n\r\n"


@pytest.fixture(scope="module")
def deciding(server: Server, bundles: tuple[Path, Path]) -> Server:
    """The server, with a bundle promoted."""
    server.releases.promote(bundles[0])
    deadline = time.monotonic() + 5
    while server.client.get("/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return server


def head(key: str | None, fields: str = "", *, length: int | None = None) -> bytes:
    """The head of a request for a decision."""
    fields += f"Authorization: Bearer {key}\r\n" if key else ""
    fields += "Transfer-Encoding: chunked\r\n" if length is None else f"Content-Length: {length}\r\n"
    return f"POST {SCORE} HTTP/1.1\r\nHost: desk\r\nContent-Type: application/json\r\n{fields}\r\n".encode()


def answers(server: Server, *parts: bytes, most: int = 1, seconds: float = 3.0) -> list[tuple[int, bytes]]:
    """Status and body of each answer to what is sent in parts, until `most` came, the server closes or time is up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(0.1)
        return read_answers(client, most)


def read_answers(client: socket.socket, most: int) -> list[tuple[int, bytes]]:
    """Status and body of the answers that come over a connection."""
    found: list[tuple[int, bytes]] = []
    with contextlib.suppress(TimeoutError), client.makefile("rb") as stream:
        while len(found) < most and (line := stream.readline()):
            fields = {}
            while field := stream.readline().strip():
                name, _, value = field.partition(b":")
                fields[name.lower()] = value.strip()
            found.append((int(line.split()[1]), stream.read(int(fields[b"content-length"]))))
    return found


def statuses(found: Sequence[tuple[int, Any]]) -> list[int]:
    """The status codes of answers."""
    return [status for status, _ in found]


@pytest.mark.parametrize("offer", [WEBSOCKET, HTTP_2], ids=["websocket", "h2c"])
def test_an_application_that_offers_another_protocol_is_decided(deciding: Server, tiny: TinyLoans, offer: str) -> None:
    """Java's HttpClient offers HTTP/2 with every request; its body may come with the head or after it, or in chunks."""
    body = json.dumps(tiny.portfolio.example).encode()
    whole = head(deciding.key, offer, length=len(body))
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    for parts in (
        [whole + body],
        [whole, body],
        [whole[:90], whole[90:] + body[:9], body[9:]],
        [head(deciding.key, offer) + chunked],
    ):
        (status, answer), *more = answers(deciding, *parts)
        assert (200, []) == (status, more), answer
        assert "decision_id" in json.loads(answer)


@pytest.mark.parametrize("offer", [WEBSOCKET, HTTP_2], ids=["websocket", "h2c"])
def test_a_body_is_never_read_as_the_next_request(deciding: Server, offer: str) -> None:
    """A proxy that sees one request must not get two answers, nor the next client's."""
    request = head(deciding.key, offer, length=len(HEALTH))

    assert [422] == statuses(answers(deciding, request, HEALTH, most=2, seconds=1))
    assert [422, 200, 422] == statuses(answers(deciding, request + HEALTH + HEALTH + request + HEALTH, most=3))
    connect = b"CONNECT /health HTTP/1.1\r\nHost: desk\r\nContent-Length: %d\r\n\r\n" % len(HEALTH)
    assert [405] == statuses(answers(deciding, connect, HEALTH, most=2))


@pytest.mark.parametrize(("path", "status"), [(SCORE, 405), ("/health", 200), ("/nowhere", 404)])
def test_a_websocket_is_answered_as_what_it_is_over_http(server: Server, path: str, status: int) -> None:
    """At once, on every path and without a key."""
    request = f"GET {path} HTTP/1.1\r\nHost: desk\r\n{WEBSOCKET}\r\n".encode()

    assert [status] == statuses(answers(server, request))


def test_a_key_in_a_trailer_lets_nobody_in(deciding: Server, tiny: TinyLoans) -> None:
    """A proxy that checks headers has not seen it."""
    body = json.dumps(tiny.portfolio.example).encode()
    chunked = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    trailer = f"Authorization: Bearer {deciding.key}\r\nIdempotency-Key: behind\r\n\r\n".encode()

    assert [401] == statuses(answers(deciding, head(None) + chunked + trailer))
    assert [200, 200] == statuses(answers(deciding, (head(deciding.key) + chunked + trailer) * 2, most=2))
    found = deciding.client.get("/api/v1/credit/decisions", headers={"Idempotency-Key": "behind"})
    assert 404 == found.status_code


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_read_to_its_end(deciding: Server, chunked: bool) -> None:
    """It comes after its head, in many parts."""
    body = b'{"applications": ' + b" " * 1_000_000 + b"[]}"
    parts = [body[start : start + 100_000] for start in range(0, len(body), 100_000)]
    if chunked:
        parts = [*(b"%x\r\n%b\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]
    begun = head(deciding.key, length=None if chunked else len(body)).replace(b"/score ", b"/score/batch ")

    ((status, answer),) = answers(deciding, begun, *parts)

    assert (422, True) == (status, b"1 to 1000 applications" in answer), answer


ENDLESS = {
    "fields": (b"GET /health HTTP/1.1\r\n", b"X-Filler: " + b"a" * 4000 + b"\r\n"),
    "one field": (b"GET /health HTTP/1.1\r\nX-Filler: ", b"a" * 4000),
    "address": (b"GET /health?", b"a" * 4000),
    "second head": (HEALTH + b"GET /health HTTP/1.1\r\n", b"X-Filler: " + b"a" * 4000 + b"\r\n"),
    "trailer": (
        b"POST /nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X-Filler: " + b"a" * 4000 + b"\r\n",
    ),
}


@pytest.mark.parametrize(("beginning", "more"), ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_is_not_kept_in_memory(server: Server, beginning: bytes, more: bytes) -> None:
    """A head or a trailer of 300 MB was kept whole, from anybody and without a key."""
    sent = 0
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(beginning)
        while sent < 100_000_000:
            client.sendall(more)
            sent += len(more)

    assert sent < 30_000_000  # what the kernels of both ends hold


@pytest.mark.slow
def test_a_client_that_takes_no_answer_holds_up_no_stop(tiny: TinyLoans, tmp_path: Path) -> None:
    """The chain's end is signed and the process ends, though megabytes wait to be read."""
    server = start_server(tiny, tmp_path)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: desk\r\n\r\n" * 10)
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()

        assert 0 == server.process.wait(timeout=60)
        assert time.monotonic() - began < LEAVING_SECONDS + 6


@pytest.mark.slow
def test_requests_that_offer_a_websocket_are_answered_when_the_service_ends(tiny: TinyLoans, tmp_path: Path) -> None:
    """They are told that nothing is promoted, in our own form, and hold up no stop."""
    server = start_server(tiny, tmp_path)
    with contextlib.ExitStack() as stack:
        waiting = []
        for offer in (WEBSOCKET, WEBSOCKET, ""):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            client.sendall(head(server.key, offer, length=2) + b"{")
            waiting.append(client)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        for client in waiting:
            client.sendall(b"}")
        answered = [read_answers(client, 1) for client in waiting]
    began = time.monotonic()

    assert 0 == server.process.wait(timeout=30)
    assert time.monotonic() - began < 6
    assert [[503]] * 3 == [statuses(one) for one in answered]
    assert "AssertionError" not in server.output.read_text()
