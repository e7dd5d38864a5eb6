"""What one tenant decided is nothing to another."""

import asyncio

import pytest

from cde_serving.records.erasure import Eraser
from cde_serving.records.vault import MasterKey
from tests.serving.asking import DECISIONS, ask, let_in, refuse
from tests.serving.helpers import NAME, SCORE, Desk, bearer, issue_key


class TestTenants:
    """What one tenant decided is nothing to another."""

    def test_another_tenants_decision_is_not_found(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """Byte for byte the answer for a decision that never was, and no key of a customer is touched to find out."""
        other = let_in(desk, issue_key(desk.scorer.log, tenant="other"))
        decision_id = desk.score().json()["decision_id"]
        assert 200 == desk.client.get(f"{DECISIONS}/{decision_id}").status_code
        monkeypatch.setattr(MasterKey, "unwrap", refuse)

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
