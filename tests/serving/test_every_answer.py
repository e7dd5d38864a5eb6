"""What all answers carry, and what none does."""

import json
from typing import Any

import pytest

from cde_serving.access.headers import SECURITY
from tests.serving.asking import DECISIONS, refuse
from tests.serving.helpers import SCORE, Desk, bearer


class TestEveryAnswer:
    """What all answers carry, and what none does."""

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/health", 200), ("GET", "/ready", 200), ("GET", "/metrics", 200), ("GET", "/docs", 200),
            ("GET", "/docs/assets/swagger-ui.css", 200), ("GET", "/", 307), ("POST", SCORE, 415), ("GET", SCORE, 405),
            ("OPTIONS", SCORE, 405), ("GET", "/nothing", 404), ("GET", "/health/", 404), ("HEAD", "/health", 200),
            ("POST", "/docs/assets/swagger-ui.css", 405), ("GET", "/docs/assets/nothing", 404),
            ("GET", f"{DECISIONS}/{'0' * 32}", 404), ("GET", DECISIONS, 400),
        ],
    )  # fmt: skip
    def test_it_has_the_headers_of_security(self, desk: Desk, method: str, path: str, status: int) -> None:
        """Also where there is no route, or no body to decide."""
        answer = desk.client.request(method, path)

        assert status == answer.status_code
        assert {name.decode() for name, _ in SECURITY} <= set(answer.headers)
        assert "no-store" == answer.headers["cache-control"]
        assert status < 400 or "detail" in answer.json()
        assert status != 405 or answer.headers["allow"]

    def test_a_method_that_is_not_there_is_told_those_that_are(self, desk: Desk) -> None:
        """As RFC 9110 wants it."""
        allowed = [desk.client.request("DELETE", path).headers["allow"] for path in (SCORE, "/health")]

        assert ["POST", "GET, HEAD"] == allowed

    def test_large_headers_are_refused(self, desk: Desk) -> None:
        """431 above 16 KiB."""
        assert 431 == desk.client.request("GET", "/health", headers={"x-filler": "a" * 16384}).status_code

    def test_a_refusal_comes_before_the_body_is_read(self, desk: Desk) -> None:
        """Nobody without a key makes the service hold a body."""

        async def body() -> Any:
            raise AssertionError("the body was read")
            yield b""

        answer = desk.client.post(SCORE, content=body(), headers=bearer("nonsense"))

        assert 401 == answer.status_code

    def test_a_deeply_nested_body_is_refused(self, desk: Desk) -> None:
        """Whether a parser would have got through or not."""
        for depth in (65, 30000):
            note = "[" * depth + "]" * depth
            body = json.dumps(desk.example)[:-1] + f', "note": {note}}}'

            answer = desk.client.post(SCORE, content=body, headers={"content-type": "application/json"})

            assert (422, "too_deep") == (answer.status_code, answer.json()["detail"][0]["type"])

    def test_decisions_that_cannot_be_read_are_no_error_of_the_service(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """503 with a time to come again."""
        monkeypatch.setattr(desk.scorer.log, "get", refuse)

        answer = desk.client.get(f"{DECISIONS}/{'0' * 32}")

        assert (503, "5") == (answer.status_code, answer.headers["retry-after"])
