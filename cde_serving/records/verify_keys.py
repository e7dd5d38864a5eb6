"""Verifying the customers' keys: each is there and whole, and what was done to it is in a chain."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cde_serving.records.raw import raw_rows, shown
from cde_serving.records.schema import customer_keys, records, vault
from cde_serving.records.vault import MasterKey, VaultError

Row = Mapping[str, Any]


class KeyEvents:
    """The restrictions and erasures that the chains hold, by customer."""

    def __init__(self) -> None:
        self._restrictions: dict[Any, list[tuple[Any, dict[str, Any] | None]]] = defaultdict(list)
        self._erasures: dict[Any, list[tuple[Any, dict[str, Any] | None]]] = defaultdict(list)

    def take_in(self, row: Row) -> None:
        """Take in a record of a chain."""
        if row["kind"] == "restriction":
            self._restrictions[row["customer"]].append((row["applied_at"], _keys_of(row)))
        elif row["kind"] == "erasure":
            self._erasures[row["customer"]].append((row["applied_at"], _keys_of(row)))

    def problems(self, key: Row) -> Iterator[str]:
        """What was done to a key that no event says, or was said and is not so."""
        number = str(key["number"])
        erased, erased_surely = _about(self._erasures[key["customer"]], number)
        restricted, restricted_surely = _about(self._restrictions[key["customer"]], number)
        if key["wrapped"] is None and not erased:
            yield "was shredded, but no chain holds the erasure"
        elif key["wrapped"] is None and key["erased_at"] not in erased:
            yield "was shredded at another time than its erasure says"
        elif key["wrapped"] is not None and (erased_surely or key["erased_at"] is not None):
            yield "was put back after its erasure"
        if key["restricted_at"] is None:
            if restricted_surely:
                yield "was restricted, and its restriction was removed"
            elif key["erase_after"] is not None:
                yield "is to be erased, but no chain holds the restriction"
        elif key["restricted_at"] not in restricted:
            yield "is restricted, but no chain holds the restriction"
        elif restricted_surely and key["erase_after"] != min(restricted_surely):
            yield "is to be erased at another time than its restriction says"


def key_problems(connection: Connection, events: KeyEvents, master: MasterKey | None) -> list[str]:
    """What is wrong with the customers' keys; whether they can be unwrapped is seen with the master key alone."""
    problems = [
        f"chain {shown(row['chain'])[:12]} record {shown(row['sequence'])} ({shown(row['record_id'])}) cannot be read: "
        "its customer's key was removed"
        for row in raw_rows(connection, _lost)
    ]
    if master is not None:
        known = connection.execute(sa.select(vault.c.master_key)).scalar()
        if known != master.id:
            problems.append(f"the database names the master key {shown(known)}, not {master.id}: no key was unwrapped")
            master = None
    for key in raw_rows(connection, sa.select(customer_keys).order_by(customer_keys.c.customer)):
        told = list(events.problems(key))
        if master is not None and key["wrapped"] is not None:
            try:
                master.unwrap(key["wrapped"], key["customer"], key["number"])
            except VaultError:
                told.append("was changed: it cannot be unwrapped")
        place = f"customer {shown(key['customer'])[:12]} key {shown(key['number'])}"
        problems += [f"{place} {what}" for what in told]
    return problems


_lost = (
    sa.select(records.c.chain, records.c.sequence, records.c.record_id)
    .join(
        customer_keys,
        sa.and_(records.c.customer == customer_keys.c.customer, records.c.key_number == customer_keys.c.number),
        isouter=True,
    )
    .where(records.c.key_number.is_not(None), customer_keys.c.customer.is_(None))
)


def _keys_of(row: Row) -> dict[str, Any] | None:
    """What an event says of keys; None for one that was recorded before events said it."""
    try:
        return msgspec.json.decode(row["reason_codes"] or b"null", type=dict[str, str | None] | None)
    except (msgspec.MsgspecError, TypeError, ValueError):
        return None  # it was changed, which is told at its place in the chain


def _about(events: list[tuple[Any, dict[str, Any] | None]], number: str) -> tuple[set[Any], list[str]]:
    """When a key may have been meant by events, and what those that name it say."""
    possible = {at for at, keys in events if keys is None or number in keys}
    return possible, [keys[number] or "" for _, keys in events if keys is not None and number in keys]
