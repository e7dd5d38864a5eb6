"""Asking for a decision with a key."""

from typing import Any

import httpx
from sqlalchemy.exc import OperationalError

from tests.serving.helpers import Desk, bearer, wait_for

DECISIONS = "/api/v1/credit/decisions"


def ask(desk: Desk, key: str, decision_id: str = "0" * 32) -> httpx.Response:
    """Ask for a decision with a key, under one request id; 404 means that the key was let in."""
    headers = {**bearer(key), "x-request-id": "the-same"}
    return desk.client.request("GET", f"{DECISIONS}/{decision_id}", headers=headers)


def let_in(desk: Desk, key: str) -> str:
    """Wait until a new key counts."""
    wait_for(lambda: ask(desk, key).status_code != 401, 1)
    return key


def refuse(*_: Any) -> Any:
    """What a database says that cannot be read."""
    raise OperationalError("SELECT", {}, Exception("disk I/O error"))
