"""Who gets in: keys over HTTP, their scopes, tenants and rates, and what every answer carries."""

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from starlette.routing import Route

from cde_serving.access import key_ring
from cde_serving.access.headers import SECURITY
from cde_serving.access.issuing import KeyIssuer
from cde_serving.access.key_ring import KeyRing
from cde_serving.access.keys import ApiKeyError, new_api_key, rate_of, read_keys
from cde_serving.access.routes import RouteTable, UnguardedRouteError
from cde_serving.records.erasure import Eraser
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.records.schema import api_keys, records
from cde_serving.records.vault import MasterKey
from tests.serving.helpers import (
    NAME,
    SCORE,
    Desk,
    Releases,
    Server,
    bearer,
    issue_key,
    key_in,
    open_log,
    revoke_in,
    wait_for,
)

DECISIONS = "/api/v1/credit/decisions"


def ask(desk: Desk, key: str, decision_id: str = "0" * 32) -> httpx.Response:
    """Ask for a decision with a key, under one request id; 404 means that the key was let in."""
    headers = {**bearer(key), "x-request-id": "the-same"}
    return desk.client.request("GET", f"{DECISIONS}/{decision_id}", headers=headers)


def revoke(desk: Desk, key: str) -> None:
    """Revoke a key as `cde keys revoke` does."""
    asyncio.run(KeyIssuer(desk.scorer.log, NAME, by="person:officer").revoke(key.split("_")[1]))


def let_in(desk: Desk, key: str) -> str:
    """Wait until a new key counts."""
    wait_for(lambda: ask(desk, key).status_code != 401, 1)
    return key


class TestKeys:
    """Keys from creation to the end."""

    def test_a_key_counts_within_a_second_of_its_creation(self, desk: Desk) -> None:
        """Another process creates it; the service is not restarted."""
        key = issue_key(desk.scorer.log, "read")

        wait_for(lambda: ask(desk, key).status_code == 404, 1)

    def test_a_revoked_key_is_refused_within_a_second(self, desk: Desk) -> None:
        """By a service that runs."""
        key = let_in(desk, issue_key(desk.scorer.log, "read"))
        revoke(desk, key)

        waited = wait_for(lambda: ask(desk, key).status_code == 401, 1)

        assert waited < 1

    def test_an_expired_key_is_refused(self, desk: Desk) -> None:
        """Without anybody revoking it."""
        key = let_in(desk, issue_key(desk.scorer.log, "read", lifetime=timedelta(seconds=1.2)))

        wait_for(lambda: ask(desk, key).status_code == 401, 3)

    def test_either_header_presents_a_key(self, desk: Desk) -> None:
        """`Authorization: Bearer` in any case, or `X-API-Key`."""
        key = desk.client.headers["authorization"].removeprefix("Bearer ")
        ways = [{"authorization": f"bearer {key}"}, {"x-api-key": key}]

        bare = type(desk.client)(desk.client.app)
        statuses = [bare.request("GET", f"{DECISIONS}/{'0' * 32}", headers=way).status_code for way in ways]

        assert [404, 404] == statuses

    def test_two_keys_at_once_are_refused(self, desk: Desk) -> None:
        """A proxy and the service could read another one each."""
        answer = desk.client.request(
            "GET", f"{DECISIONS}/{'0' * 32}", headers={"x-api-key": issue_key(desk.scorer.log)}
        )

        assert 401 == answer.status_code

    def test_the_database_holds_no_key(self, desk: Desk, tmp_path: Path) -> None:
        """Only a keyed hash, which goes too when the key is revoked."""
        key = let_in(desk, issue_key(desk.scorer.log, "read"))
        secret = key.split("_")[2]
        with desk.scorer.log.read_engine.connect() as connection:
            digest = connection.execute(sa.select(api_keys.c.digest).where(api_keys.c.key_id == key.split("_")[1]))
            known = digest.scalar_one()
        revoke(desk, key)

        with desk.scorer.log.read_engine.connect() as connection:
            rows = connection.execute(sa.select(api_keys)).all()
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("decisions.sqlite*"))
        assert secret.encode() not in stored
        assert known not in str(rows)

    def test_a_key_widened_in_the_database_is_no_key(self, desk: Desk, tmp_path: Path) -> None:
        """Tenant, scopes, rate and expiry are part of what is hashed."""
        for column, value in (("scopes", "score read"), ("tenant", "other"), ("rate", "9/day"), ("expires_at", "9")):
            key = let_in(desk, issue_key(desk.scorer.log, "read"))
            with sqlite3.connect(tmp_path / "decisions.sqlite") as database:
                database.execute(f"UPDATE api_keys SET {column} = ? WHERE key_id = ?", (value, key.split("_")[1]))

            wait_for(lambda key=key: ask(desk, key).status_code == 401, 1)

    def test_creation_and_revocation_stand_in_the_chain(self, desk: Desk) -> None:
        """By whom, of which key and of which tenant."""
        key = issue_key(desk.scorer.log, "read", tenant="acme")
        revoke(desk, key)

        with desk.scorer.log.read_engine.connect() as connection:
            query = sa.select(records.c.kind, records.c.customer, records.c.tenant, records.c.decided_by)
            found = connection.execute(query.order_by(records.c.sequence)).all()[-2:]

        key_id = key.split("_")[1]
        assert [
            ("key_created", key_id, "acme", "person:officer"),
            ("key_revoked", key_id, "acme", "person:officer"),
        ] == [tuple(row) for row in found]

    def test_a_key_is_revoked_once(self, desk: Desk) -> None:
        """A second time, or one that never was, is told."""
        key = issue_key(desk.scorer.log, "read")
        revoke(desk, key)

        with pytest.raises(ApiKeyError, match="it was revoked at"):
            revoke(desk, key)
        with pytest.raises(ApiKeyError, match="no such key"):
            revoke(desk, f"cde_{'0' * 12}_x")

    @pytest.mark.parametrize(
        "asked",
        [
            {"tenant": "Acme"}, {"tenant": ""}, {"tenant": "a" * 65}, {"tenant": "a\0b"}, {"scopes": []},
            {"scopes": ["root"]}, {"rate": "often"}, {"rate": "0/second"}, {"name": ""}, {"name": "a\u202eb"},
        ],
    )  # fmt: skip
    def test_a_key_that_makes_no_sense_is_not_created(self, asked: dict[str, Any]) -> None:
        """The error says what is possible."""
        sound: dict[str, Any] = {"tenant": "acme", "scopes": ["read"], "rate": None, "name": None}

        with pytest.raises(ApiKeyError):
            new_api_key(MasterKey(bytes(32)), **{**sound, **asked}, by="person:officer", at="2026", expires_at=None)

    def test_keys_are_the_same_on_both_databases(self, log_url: str, tmp_path: Path) -> None:
        """Created, read and revoked on SQLite and PostgreSQL."""
        log = open_log(tmp_path, log_url)
        key = issue_key(log, "read", "score", rate="5/second", name="core banking", lifetime=timedelta(days=1))
        ring = KeyRing(log.read_engine, log.master, lambda: log.writer._clock())
        recognised = ring.recognise(key.encode())
        asyncio.run(KeyIssuer(log, NAME, by="person:officer").revoke(key.split("_")[1]))
        with log.read_engine.connect() as connection:
            known = read_keys(connection)
        ring.close()
        log.close()

        assert recognised is not None
        assert ("default", "score read", "5/second", "core banking") == (
            recognised.tenant, recognised.granted, recognised.rate, recognised.name,
        )  # fmt: skip
        assert [None] == [one.digest for one in known]


class TestFailingClosed:
    """A service that cannot tell who asks lets nobody in."""

    def test_keys_that_cannot_be_read_let_nobody_in(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """503 with a time to come again once a second has passed, and admission again when they can be read."""
        assert 404 == desk.client.get(f"{DECISIONS}/{'0' * 32}").status_code
        with monkeypatch.context() as broken:
            broken.setattr(key_ring, "live_rows", _refuse)
            wait_for(lambda: desk.client.get(f"{DECISIONS}/{'0' * 32}").status_code == 503, 2)
            answer = desk.client.get(f"{DECISIONS}/{'0' * 32}")

            assert ("1", 200) == (answer.headers["retry-after"], desk.client.get("/health").status_code)

        wait_for(lambda: desk.client.get(f"{DECISIONS}/{'0' * 32}").status_code == 404, 2)

    def test_keys_that_are_read_late_are_waited_for(self, desk: Desk) -> None:
        """A busy machine is no reason to refuse."""
        keys = desk.scorer.keys
        assert keys is not None
        keys._watched._read_at = time.monotonic() - 60

        assert 404 == desk.client.get(f"{DECISIONS}/{'0' * 32}").status_code

    def test_an_error_in_admission_is_an_answer(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """500 at once, and the request goes no further."""
        monkeypatch.setattr(KeyRing, "recognise", _refuse)

        answer = desk.score()

        assert (500, {"detail": "Internal error"}) == (answer.status_code, answer.json())
        assert 0 == desk.scorer.log.count()

    def test_a_route_without_a_scope_is_not_served(self) -> None:
        """Whoever adds a route says who may ask it."""
        with pytest.raises(UnguardedRouteError, match="which scope it needs"):
            RouteTable([Route("/api/v1/credit/secrets", _refuse)])


def _refuse(*_: Any) -> Any:
    raise OperationalError("SELECT", {}, Exception("disk I/O error"))


class TestTenants:
    """What one tenant decided is nothing to another."""

    def test_another_tenants_decision_is_not_found(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """Byte for byte the answer for a decision that never was, and no key of a customer is touched to find out."""
        other = let_in(desk, issue_key(desk.scorer.log, tenant="other"))
        decision_id = desk.score().json()["decision_id"]
        assert 200 == desk.client.get(f"{DECISIONS}/{decision_id}").status_code
        monkeypatch.setattr(MasterKey, "unwrap", _refuse)

        foreign, missing = ask(desk, other, decision_id), ask(desk, other, "0" * 32)

        assert 404 == foreign.status_code
        assert (foreign.content, foreign.headers.raw) == (missing.content, missing.headers.raw)

    def test_another_tenants_idempotency_key_is_another_key(self, desk: Desk) -> None:
        """Two tenants use one key for two decisions, and each reads its own."""
        other = let_in(desk, issue_key(desk.scorer.log, tenant="other"))
        named = {"idempotency-key": "k-1"}
        body = {**desk.example, "loan_amount": 900.0}

        mine = desk.client.post(SCORE, json=desk.example, headers=named)
        missing = desk.client.request("GET", DECISIONS, headers={**named, **bearer(other)})
        theirs = desk.client.post(SCORE, json=body, headers={**named, **bearer(other)})

        assert (200, 404, 200) == (mine.status_code, missing.status_code, theirs.status_code)
        assert mine.json()["decision_id"] != theirs.json()["decision_id"]
        assert mine.content == desk.client.request("GET", DECISIONS, headers=named).content
        assert theirs.content == desk.client.request("GET", DECISIONS, headers={**named, **bearer(other)}).content

    def test_an_erased_decision_of_another_tenant_is_not_found(self, desk: Desk) -> None:
        """410 would tell that there was one."""
        other = let_in(desk, issue_key(desk.scorer.log, tenant="other"))
        decision_id = desk.score().json()["decision_id"]
        eraser = Eraser(desk.scorer.log, NAME, retention_days=0, by="person:officer")
        asyncio.run(eraser.erase("customer-1", at_once=True))

        assert [410, 404] == [
            desk.client.get(f"{DECISIONS}/{decision_id}").status_code, ask(desk, other, decision_id).status_code,
        ]  # fmt: skip


class TestRates:
    """How often a key may ask."""

    def test_a_key_that_asks_too_often_is_told_when_to_come_again(self, desk: Desk) -> None:
        """429 for it, and not for others."""
        key = let_in(desk, issue_key(desk.scorer.log, "read", rate="3/hour"))

        answers = [ask(desk, key) for _ in range(4)]

        assert [404, 404, 429, 429] == [answer.status_code for answer in answers]
        assert 3500 < int(answers[-1].headers["retry-after"]) <= 3600
        assert 200 == desk.score().status_code

    def test_a_rate_bounds_decisions_and_not_batches_alone(self, desk: Desk) -> None:
        """A batch counts its applications, and fits whole or not at all."""
        key = let_in(desk, issue_key(desk.scorer.log, "score", "read", rate="5/hour"))  # one is spent on this

        def batch(size: int) -> httpx.Response:
            return desk.client.post(f"{SCORE}/batch", json={"applications": [desk.example] * size}, headers=bearer(key))

        fits, full = batch(2), batch(3)

        assert (200, 429) == (fits.status_code, full.status_code)
        assert 3500 < int(full.headers["retry-after"]) <= 3600
        assert 2 == desk.scorer.log.count()
        assert 200 == batch(1).status_code  # the refused batch counted as one request
        assert 429 == batch(1).status_code

    def test_a_batch_that_no_window_holds_is_told_so(self, desk: Desk) -> None:
        """Coming again would not help."""
        key = let_in(desk, issue_key(desk.scorer.log, "score", rate="2/hour"))

        answer = desk.client.post(f"{SCORE}/batch", json={"applications": [desk.example] * 3}, headers=bearer(key))

        assert (422, "batch_above_rate") == (answer.status_code, answer.json()["detail"][0]["type"])
        assert "2 per 1 hour" in answer.json()["detail"][0]["message"]
        assert 0 == desk.scorer.log.count()

    def test_a_rate_is_given_again_when_its_time_has_passed(self, desk: Desk) -> None:
        """A second for a rate a second."""
        key = let_in(desk, issue_key(desk.scorer.log, "read", rate="1/second"))

        wait_for(lambda: ask(desk, key).status_code == 429, 1)
        wait_for(lambda: ask(desk, key).status_code == 404, 2)

    def test_a_rate_is_written_as_people_write_it(self) -> None:
        """A number and a time."""
        assert [(100, 1), (5000, 3600)] == [
            (rate.amount, rate.get_expiry()) for rate in map(rate_of, ("100/second", "5000 per hour"))
        ]


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
        monkeypatch.setattr(desk.scorer.log, "get", _refuse)

        answer = desk.client.get(f"{DECISIONS}/{'0' * 32}")

        assert (503, "5") == (answer.status_code, answer.headers["retry-after"])


def test_without_authentication_everybody_is_the_default_tenant(
    open_desk: Callable[..., Desk], releases: Releases, bundles: tuple[Path, Path]
) -> None:
    """For tries, and told by `/ready`."""
    releases.promote(bundles[0])
    desk = open_desk(releases, auth=False)
    decision_id = desk.client.post(SCORE, json=desk.example).json()["decision_id"]

    assert 200 == desk.client.get(f"{DECISIONS}/{decision_id}").status_code
    assert "off" == desk.client.get("/ready").json()["auth"]
    assert desk.scorer.log.get(decision_id, DEFAULT_TENANT) is not None


def test_a_running_service_refuses_a_revoked_key_within_a_second(server: Server) -> None:
    """A real server, and `cde keys` in another process."""
    home = server.releases.store.folder.parent
    key = key_in(home)
    path = f"{DECISIONS}/{'0' * 32}"
    wait_for(lambda: server.client.get(path, headers=bearer(key)).status_code == 404, 1.5)
    revoke_in(home, key)

    wait_for(lambda: server.client.get(path, headers=bearer(key)).status_code == 401, 1)

    assert not re.search("cde_[0-9a-f]{12}_", server.output.read_text(encoding="utf-8"))
