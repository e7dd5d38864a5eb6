"""Loaded by Schemathesis: a client that names each application by an idempotency key of its own."""

import hashlib
import json
from typing import Any

import schemathesis

NAME = "Idempotency-Key"


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """One key for two requests is refused by design, so a usable key is bound to what is asked with it."""
    key = (case.headers or {}).get(NAME)
    if case.method == "POST" and isinstance(key, str) and 0 < len(key) <= 255 and all("!" <= one <= "~" for one in key):
        asked = json.dumps([case.path, case.query, case.body], sort_keys=True, default=str)
        case.headers[NAME] = hashlib.sha256(f"{key} {asked}".encode()).hexdigest()
