"""Loaded by Schemathesis: a client that names each application by an idempotency key of its own."""

import hashlib
import json
from typing import Any

import schemathesis

NAME = "Idempotency-Key"


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """One key for two applications is refused by design, so a usable key is bound to the body that it comes with."""
    key = (case.headers or {}).get(NAME)
    if case.method == "POST" and isinstance(key, str) and 0 < len(key) <= 255 and all("!" <= one <= "~" for one in key):
        body = json.dumps(case.body, default=str)  # in the order in which it is sent: other bytes are another request
        case.headers[NAME] = hashlib.sha256(f"{key} {case.path} {body}".encode()).hexdigest()
