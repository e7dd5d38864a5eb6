"""Every route with every kind of credential: who is let in, and that the operations manual says the same.

`WRITE_DOCS=1 pytest tests/serving/test_credentials_matrix.py` writes the table into the manual.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cde_serving.access.issuing import KeyIssuer
from cde_serving.access.key_ring import KeyRing
from cde_serving.access.keys import SCOPES
from cde_serving.access.rates import Rates
from cde_serving.access.routes import RouteTable
from cde_serving.app import create_app, routes_of
from cde_serving.follower import ReleaseFollower
from cde_serving.kill_switch import KillSwitch
from cde_serving.metrics import Metrics
from cde_serving.routes.docs import Docs
from cde_serving.scorer import Scorer
from tests.serving.helpers import ROOT, AppClient, Desk, bearer, issue_key, open_log, releases_in
from tests.support import NAME, TinyLoans

MANUAL = ROOT / "docs" / "operations.md"
BEGIN, END = "<!-- credentials: begin -->\n", "<!-- credentials: end -->\n"

POOR = {"credit_history": {"score": 320.0, "accounts": []}}  # rejected, so that there is a notice
REVIEW = {"reviewer": "A. Officer", "verdict": "REJECTED", "reason": "confirmed", "reason_codes": ["LOAN_TO_INCOME"]}
OUTCOME = {"outcome": "repaid", "date": f"{datetime.now(UTC):%Y-%m-%d}"}

# How a request that is let in is answered, by method and path as the route has it: the request's own headers and body,
# the status for the tenant whose decision it is about, and the status for another tenant.
REQUESTS: dict[tuple[str, str], tuple[dict[str, Any], int, int]] = {
    ("POST", "/api/v1/credit/score"): ({"json": "example"}, 200, 200),
    ("GET", "/api/v1/credit/decisions"): ({"headers": {"idempotency-key": "k-1"}}, 200, 404),
    ("GET", "/api/v1/credit/decisions/{decision_id}"): ({}, 200, 404),
    ("POST", "/api/v1/credit/score/batch"): ({"json": {"applications": [{}]}}, 200, 200),
    ("POST", "/api/v1/credit/decisions/{decision_id}/review"): ({"json": REVIEW}, 201, 404),
    ("POST", "/api/v1/credit/decisions/{decision_id}/outcome"): (
        {"json": OUTCOME},
        422,
        404,
    ),  # let in, but nothing was lent
    ("GET", "/api/v1/credit/decisions/{decision_id}/history"): ({}, 200, 404),
    ("GET", "/api/v1/credit/decisions/{decision_id}/explanation"): ({"params": {"kind": "full"}}, 200, 404),
    ("GET", "/api/v1/credit/decisions/{decision_id}/notice"): ({}, 200, 404),
    ("GET", "/api/v1/credit/decisions/{decision_id}/notice.html"): ({}, 200, 404),
    ("GET", "/health"): ({}, 200, 200),
    ("GET", "/ready"): ({}, 200, 200),
    ("GET", "/metrics"): ({}, 200, 200),
    ("GET", "/"): ({}, 307, 307),
    ("GET", "/docs"): ({}, 200, 200),
    ("GET", "/docs/start.js"): ({}, 200, 200),
    ("GET", "/docs/assets"): ({}, 200, 200),
    ("GET", "/openapi.json"): ({}, 200, 200),
}

CREDENTIALS = ("no key", "garbage", "wrong secret", "revoked", "expired", *SCOPES, "all scopes", "another tenant")
REFUSED = CREDENTIALS[:5]


@dataclass
class House:
    """An app with one decision of the default tenant, and a header for every kind of credential."""

    desk: Desk
    table: RouteTable
    decision_id: str
    headers: dict[str, dict[str, str]]

    def status(self, method: str, path: str, credential: str) -> int:
        """How a request with a credential is answered."""
        sent = dict(REQUESTS["GET" if method == "HEAD" else method, path][0])
        if sent.get("json") == "example":
            sent["json"] = {**self.desk.example, **POOR}  # what was asked under the key
        sent["headers"] = {**sent.get("headers", {}), **self.headers[credential]}
        path = path.replace("{decision_id}", self.decision_id)
        path = f"{path}/swagger-ui.css" if path == "/docs/assets" else path
        return self.desk.client.request(method, path, **sent).status_code


def expected(method: str, path: str, needs: str | None, credential: str) -> int:
    """How it must be answered: the rule, in one place."""
    _, own, foreign = REQUESTS[method, path]
    if needs is None:
        return own
    if credential in REFUSED:
        return 401
    if credential in SCOPES and credential != needs:
        return 403
    return foreign if credential == "another tenant" else own


@pytest.fixture(scope="module")
def house(tiny: TinyLoans, bundles: tuple[Path, Path]) -> Iterator[House]:
    """One app for all."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        releases = releases_in(home / NAME)
        releases.promote(bundles[0])
        log = open_log(home)
        follower = ReleaseFollower(releases.store, on_failure=lambda: None)
        follower.start()
        headers = _headers(log)
        keys = KeyRing(log.read_engine, log.master)
        scorer = Scorer(
            follower,
            log,
            Metrics(),
            promote="make demo",
            keys=keys,
            rates=Rates("100000/second"),
            switch=KillSwitch(log.read_engine, NAME),
        )
        desk = Desk(scorer, AppClient(create_app(scorer)), dict(tiny.portfolio.example))
        decided = desk.client.post(
            "/api/v1/credit/score",
            json={**desk.example, **POOR},
            headers={"idempotency-key": "k-1", **headers["all scopes"]},
        )
        routes = routes_of(scorer)
        yield House(desk, RouteTable([*routes, *Docs(scorer, routes).routes]), decided.json()["decision_id"], headers)
        scorer.close()


def _headers(log: Any) -> dict[str, dict[str, str]]:
    good, revoked = issue_key(log), issue_key(log)
    asyncio.run(KeyIssuer(log, NAME, by="person:officer").revoke(revoked.split("_")[1]))
    keys = {
        "garbage": "Bearer-of-nothing",
        "wrong secret": good[:-8] + "00000000",
        "revoked": revoked,
        "expired": issue_key(log, lifetime=timedelta(microseconds=1)),
        **{scope: issue_key(log, scope) for scope in SCOPES},
        "all scopes": good,
        "another tenant": issue_key(log, tenant="other"),
    }
    return {"no key": {}, **{name: bearer(key) for name, key in keys.items()}}


def test_every_route_is_in_the_matrix(house: House) -> None:
    """Whoever adds a route says here how it answers."""
    routes = {
        (method, route.path) for route in house.table.routes for method in route.methods or () if method != "HEAD"
    }

    assert routes == set(REQUESTS)


def test_only_what_holds_no_personal_value_is_open(house: House) -> None:
    """Probes, bounded counters and the documentation; a further open route is a decision that is taken here."""
    assert {route.path for route in house.table.routes if route.needs is None} == {
        "/", "/docs", "/docs/assets", "/docs/start.js", "/health", "/metrics", "/openapi.json", "/ready",
    }  # fmt: skip


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize(("method", "path"), REQUESTS, ids=lambda value: value)
def test_a_credential_is_let_in_where_it_may(house: House, method: str, path: str, credential: str) -> None:
    """401 without a key that counts, 403 without the scope, and another tenant sees nothing."""
    needs = next(r.needs for r in house.table.routes if r.path == path and method in (r.methods or ()))

    status = house.status(method, path, credential)

    assert expected(method, path, needs, credential) == status
    assert method != "GET" or status == house.status("HEAD", path, credential)


def test_the_manual_shows_this_matrix(house: House) -> None:
    """What an operator reads is what was measured."""
    rows = [("Route", "Scope", *CREDENTIALS)]
    for route in sorted(house.table.routes, key=lambda route: (route.needs is None, route.path)):
        for method in sorted((route.methods or frozenset()) - {"HEAD"}):
            statuses = [str(house.status(method, route.path, credential)) for credential in CREDENTIALS]
            rows.append((f"`{method} {route.path}`", route.needs or "open", *statuses))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    table = "\n".join(lines) + "\n"
    before, rest = MANUAL.read_text(encoding="utf-8").split(BEGIN)
    shown, after = rest.split(END)
    if os.environ.get("WRITE_DOCS"):
        MANUAL.write_text(before + BEGIN + table + END + after, encoding="utf-8")
        return

    assert table == shown
