"""Who gets in: keys over HTTP, and that nobody does where it cannot be told who asks."""

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.routing import Route

from cde_serving.access import key_ring
from cde_serving.access.issuing import KeyIssuer
from cde_serving.access.key_ring import KeyRing
from cde_serving.access.keys import ApiKeyError, new_api_key, read_keys
from cde_serving.access.routes import RouteTable, UnguardedRouteError
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.records.schema import api_keys, records
from cde_serving.records.vault import MasterKey
from tests.serving.asking import DECISIONS, ask, let_in, refuse
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


def revoke(desk: Desk, key: str) -> None:
    """Revoke a key as `cde keys revoke` does."""
    asyncio.run(KeyIssuer(desk.scorer.log, NAME, by="person:officer").revoke(key.split("_")[1]))


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
            broken.setattr(key_ring, "live_rows", refuse)
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
        monkeypatch.setattr(KeyRing, "recognise", refuse)

        answer = desk.score()

        assert (500, {"detail": "Internal error"}) == (answer.status_code, answer.json())
        assert 0 == desk.scorer.log.count()

    def test_a_route_without_a_scope_is_not_served(self) -> None:
        """Whoever adds a route says who may ask it."""
        with pytest.raises(UnguardedRouteError, match="which scope it needs"):
            RouteTable([Route("/api/v1/credit/secrets", refuse)])


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
