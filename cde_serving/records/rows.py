"""From what is to be kept to rows of the database: keys looked up or made, payloads sealed, hashes chained."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cde_serving.records.chain import FORMAT, record_hash
from cde_serving.records.record import Event, Record
from cde_serving.records.schema import customer_keys, records
from cde_serving.records.vault import MasterKey, new_key, seal

CustomerKey = tuple[str, bytes]  # id, key

_pack = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode

_keys_in_use = (
    sa.select(customer_keys.c.customer, customer_keys.c.key_id, customer_keys.c.wrapped)
    .where(
        customer_keys.c.restricted_at.is_(None), customer_keys.c.customer.in_(sa.bindparam("customers", expanding=True))
    )
    .with_for_update(read=True)  # on PostgreSQL nobody shreds a key between here and the commit
)
_insert_keys = sa.insert(customer_keys)
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
        return Head(self.chain, found.sequence, found.hash) if found else Head(self.chain, 0, "")


def keys_of(connection: Connection, master: MasterKey, customers: set[str], now: str) -> dict[str, CustomerKey]:
    """The keys in use of customers, by token; who has none gets one."""
    if not customers:
        return {}
    found = connection.execute(_keys_in_use, {"customers": list(customers)}).all()
    keys = {customer: (key_id, master.unwrap(wrapped, key_id)) for customer, key_id, wrapped in found}
    fresh = []
    for customer in customers - keys.keys():
        key_id, key = new_key()
        keys[customer] = (key_id, key)
        fresh.append({"key_id": key_id, "customer": customer, "created_at": now, "wrapped": master.wrap(key, key_id)})
    if fresh:
        connection.execute(_insert_keys, fresh)
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
        "kind": "decision",
        "tenant": record.tenant,
        "portfolio": record.portfolio,
        "applied_at": record.applied_at,
        "recorded_at": now,
        "customer": customer,
        "key_id": key[0],
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
        "payload": seal(key[1], _pack(record.payload), record.record_id),
    }


def event_row(event: Event, now: str) -> dict[str, Any]:
    """The row of an event, not yet chained."""
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
    }
