"""From what is to be kept to rows of the database: keys looked up or made, payloads sealed, hashes chained."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cde_serving.records.chain import FIRST, FORMAT, record_hash
from cde_serving.records.monitoring import Apart
from cde_serving.records.record import Event, Record
from cde_serving.records.schema import records
from cde_serving.records.statements import Statements
from cde_serving.records.vault import CustomerKey, MasterKey, VaultError, new_key, seal

_pack = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode

_head = (
    sa.select(records.c.sequence, records.c.hash)
    .where(records.c.chain == sa.bindparam("chain"))
    .order_by(records.c.sequence.desc())
    .limit(1)
)
_unused = dict.fromkeys(column.name for column in records.columns)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain."""

    chain: str
    sequence: int
    hash: str

    def read(self, connection: Connection) -> "Head":
        """The end of this chain as the database has it."""
        found = connection.execute(_head, {"chain": self.chain}).first()
        return Head(self.chain, found.sequence, found.hash) if found else Head(self.chain, 0, FIRST)


def keys_of(
    connection: Connection, statements: Statements, master: MasterKey, customers: set[str], now: str
) -> dict[str, CustomerKey | VaultError]:
    """
    The keys in use of customers, by token; who has none, or a restricted one, gets a new one.

    A damaged key is an error of this customer alone; it gets no successor, which would hide the damage.
    """
    if not customers:
        return {}
    latest: dict[str, tuple[int, bytes | None, str | None]] = {}
    for customer, number, wrapped, restricted_at in statements.keys_of(connection, customers):
        latest[customer] = (number, wrapped, restricted_at)  # they come in the order of their numbers
    keys: dict[str, CustomerKey | VaultError] = {}
    fresh, used = [], []
    for customer in sorted(customers):
        number, wrapped, restricted_at = latest.get(customer, (0, None, None))
        if wrapped is not None and restricted_at is None:
            try:
                keys[customer] = CustomerKey(number, master.unwrap(wrapped, customer, number))
            except VaultError as error:
                keys[customer] = error
                continue
            used.append({"in_use": customer, "in_use_number": number, "last_used_at": now})
        else:
            keys[customer] = key = CustomerKey(number + 1, new_key())
            wrapped = master.wrap(key.secret, customer, key.number)
            fresh.append({"customer": customer, "number": key.number, "last_used_at": now, "wrapped": wrapped})
    statements.keep_keys(connection, fresh, used)
    return keys


def chained(head: Head, rows: Iterable[dict[str, Any]]) -> Head:
    """Number and chain rows in place, after the end of a chain; return the new end."""
    chain, sequence, previous = head.chain, head.sequence, head.hash
    for row in rows:
        sequence += 1
        row["chain"] = chain
        row["sequence"] = sequence
        row["previous"] = previous
        previous = row["hash"] = record_hash(row)
    return Head(chain, sequence, previous)


def decision_row(record: Record, customer: str, idempotency: str | None, key: CustomerKey, now: str) -> dict[str, Any]:
    """The row of a decision, not yet chained."""
    versions = record.versions
    return {
        "record_id": record.record_id,
        "format": FORMAT,
        "kind": record.kind,
        "tenant": record.tenant,
        "portfolio": record.portfolio,
        "applied_at": record.applied_at,
        "recorded_at": now,
        "customer": customer,
        "key_number": key.number,
        "idempotency": idempotency,
        "fingerprint": record.fingerprint,
        "decision": record.decision,
        "decided_by": record.decided_by,
        "reason_codes": _json(record.reason_codes).decode(),
        "variant": record.variant,
        "bundle": versions.bundle,
        "model": versions.model,
        "policy": versions.policy,
        "policy_version": versions.policy_version,
        "code": versions.code,
        "payload": seal(key.secret, _pack(record.payload), record.record_id),
        "about": None,
    }


def protected_row(record: Record, decision: Mapping[str, Any], record_id: str, key: CustomerKey) -> dict[str, Any]:
    """The row of the protected attributes that came with a decision, not yet chained; the other says of what."""
    assert record.protected is not None
    kept = ("format", "tenant", "portfolio", "applied_at", "recorded_at", "customer", "key_number")
    return {
        **_unused,
        **{name: decision[name] for name in kept},
        "record_id": record_id,
        "kind": "protected",
        "payload": seal(key.secret, _pack(Apart(record.record_id, record.protected)), record_id),
    }


def event_row(event: Event, now: str, keys: Mapping[str, str | None]) -> dict[str, Any]:
    """The row of an event and what was done to which keys, not yet chained: the hash is over both."""
    about = keys if event.kind in ("restriction", "erasure") else [event.reason] if event.reason else None
    return {
        **_unused,
        "record_id": event.record_id,
        "format": FORMAT,
        "kind": event.kind,
        "tenant": event.tenant,
        "portfolio": event.portfolio,
        "applied_at": event.at,
        "recorded_at": now,
        "customer": event.customer,
        "decided_by": event.by,
        "reason_codes": None if about is None else _json(about).decode(),
        "about": event.follows,
    }
