"""The hash chain: every record carries the hash of the one before it in its writer's chain."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

FORMAT = 2
FIRST = ""  # what the first record of a chain has for the hash before it

# What a hash is taken over, in this order. Another list is another format: old records keep theirs.
_FIRST_FORMAT = (
    "format", "chain", "sequence", "record_id", "kind", "tenant", "portfolio", "applied_at", "recorded_at",
    "customer", "key_number", "idempotency", "fingerprint", "decision", "decided_by", "reason_codes", "variant",
    "bundle", "model", "policy", "policy_version", "code", "previous",
)  # fmt: skip
_HASHED = {1: _FIRST_FORMAT, 2: (*_FIRST_FORMAT, "about")}

_encode = msgspec.msgpack.Encoder().encode


def record_hash(row: Mapping[str, Any]) -> str:
    """
    SHA-256, in hexadecimal, over a record's columns as a MessagePack array and its encrypted payload.

    It needs no key, so the chain verifies after a customer's key was shredded.

    Raises:
        KeyError: the record's format is not known.
    """
    digest = hashlib.sha256(_encode([row[name] for name in _HASHED[row["format"]]]))
    digest.update(row["payload"] or b"")
    return digest.hexdigest()
