"""Reading the decision log."""

from collections.abc import Collection, Iterator

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine, RowMapping

from cde_serving.records.raw import raw_reader, raw_rows
from cde_serving.records.record import (
    DEFAULT_TENANT,
    ErasedError,
    Kind,
    Payload,
    Record,
    UnreadableRecordError,
    Versions,
)
from cde_serving.records.schema import customer_keys, records
from cde_serving.records.vault import MasterKey, VaultError, unseal

ROWS_AT_ONCE = 500

DECISIONS: tuple[Kind, ...] = ("decision",)

_decode = msgspec.msgpack.Decoder(Payload).decode

_with_key = sa.select(records, customer_keys.c.wrapped, customer_keys.c.restricted_at).join(
    customer_keys,
    sa.and_(records.c.customer == customer_keys.c.customer, records.c.key_number == customer_keys.c.number),
    isouter=True,
)
_decisions = _with_key.where(records.c.kind == "decision")


class RecordStore:
    """The decisions in a database, read with the master key."""

    def __init__(self, engine: Engine, master: MasterKey) -> None:
        self._engine = engine
        self._master = master

    def get(self, record_id: str, tenant: str = DEFAULT_TENANT, kinds: Collection[Kind] = DECISIONS) -> Record | None:
        """
        A tenant's decision of one of some kinds, or None.

        Raises:
            ErasedError: the customer's data was erased or is restricted.
            UnreadableRecordError: the record was changed.
        """
        of_kinds = _with_key.where(records.c.kind.in_(kinds))
        return self._one(of_kinds.where(records.c.record_id == record_id, records.c.tenant == tenant))

    def find(self, idempotency_key: str, tenant: str = DEFAULT_TENANT) -> Record | None:
        """The decision that was asked for under an idempotency key, as `get` gives it."""
        token = self._master.token("idempotency key", tenant, idempotency_key)
        return self._one(_decisions.where(records.c.idempotency == token))

    def count(self) -> int:
        """How many decisions are recorded."""
        with self._engine.connect() as connection:
            counted = sa.select(sa.func.count()).select_from(records).where(records.c.kind == "decision")
            return int(connection.execute(counted).scalar_one())

    def ids(self, kinds: Collection[Kind] = DECISIONS) -> Iterator[tuple[str, str]]:
        """Id and tenant of every decision of some kinds, in the order of the chains."""
        query = sa.select(records.c.record_id, records.c.tenant).where(records.c.kind.in_(kinds))
        with raw_reader(self._engine) as connection:
            for row in raw_rows(connection, query.order_by(records.c.chain, records.c.sequence)):
                yield row["record_id"], row["tenant"]

    def all(self) -> Iterator[tuple[str, Record | None]]:
        """The id of every decision in the order of the chains, with its record; None for an erased one."""
        with self._engine.connect().execution_options(yield_per=ROWS_AT_ONCE) as connection:
            for row in connection.execute(_decisions.order_by(records.c.chain, records.c.sequence)).mappings():
                try:
                    yield row["record_id"], self._open(row)
                except ErasedError:
                    yield row["record_id"], None

    def _one(self, query: sa.Select) -> Record | None:
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return self._open(row) if row else None

    def _open(self, row: RowMapping) -> Record:
        return opened(self._master, row)


def opened(master: MasterKey, row: RowMapping) -> Record:
    """
    The decision in a row, which holds its customer's key too.

    Raises:
        ErasedError: the customer's data was erased or is restricted.
        UnreadableRecordError: the record was changed.
    """
    if row["wrapped"] is None:
        raise ErasedError("the customer's data was erased")
    if row["restricted_at"] is not None:
        raise ErasedError("the customer's data is kept by law alone and no longer used")
    try:
        key = master.unwrap(row["wrapped"], row["customer"], row["key_number"])
        return _record(row, _decode(unseal(key, row["payload"], row["record_id"])))
    except (VaultError, msgspec.DecodeError) as error:
        raise UnreadableRecordError(row["record_id"], error) from None


def _record(row: RowMapping, payload: Payload) -> Record:
    return Record(
        record_id=row["record_id"],
        applied_at=row["applied_at"],
        portfolio=row["portfolio"],
        payload=payload,
        decision=row["decision"],
        decided_by=row["decided_by"],
        reason_codes=tuple(msgspec.json.decode(row["reason_codes"])),
        variant=row["variant"],
        kind=row["kind"],
        versions=Versions(
            bundle=row["bundle"],
            model=row["model"],
            policy=row["policy"],
            code=row["code"],
            policy_version=row["policy_version"],
        ),
        tenant=row["tenant"],
        fingerprint=row["fingerprint"],
        chain=row["chain"],
        sequence=row["sequence"],
        recorded_at=row["recorded_at"],
    )
