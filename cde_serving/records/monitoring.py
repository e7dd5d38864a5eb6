"""Protected attributes as they are kept for fairness monitoring: in records of their own, apart from any decision."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cde_serving.records.schema import customer_keys, records
from cde_serving.records.vault import MasterKey, VaultError, unseal

ROWS_AT_ONCE = 500


class Apart(msgspec.Struct, array_like=True, frozen=True):
    """The content of a record of kind `protected`: the decision that it goes with, and the attributes."""

    decision_id: str
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class Monitored:
    """What fairness monitoring joins: `customer` is the token, which decisions bear too."""

    decision_id: str
    customer: str
    attributes: Mapping[str, str]


_decode = msgspec.msgpack.Decoder(Apart).decode

_query = (
    sa.select(records.c.record_id, records.c.customer, records.c.key_number, records.c.payload, customer_keys.c.wrapped)
    .join(
        customer_keys,
        sa.and_(records.c.customer == customer_keys.c.customer, records.c.key_number == customer_keys.c.number),
    )
    .where(records.c.kind == "protected", customer_keys.c.wrapped.is_not(None), customer_keys.c.restricted_at.is_(None))
    .order_by(records.c.chain, records.c.sequence)
)


def read_apart(key: bytes, sealed: bytes, record_id: str) -> Apart:
    """
    The content of a record of kind `protected`, with its customer's key.

    Raises:
        VaultError: the record was changed.
    """
    try:
        return _decode(unseal(key, sealed, record_id))
    except msgspec.DecodeError:
        raise VaultError("a record of protected attributes was changed") from None


def monitored(engine: Engine, master: MasterKey) -> Iterator[Monitored]:
    """
    The protected attributes of every customer who is neither erased nor restricted.

    Raises:
        VaultError: a record was changed.
    """
    with engine.connect().execution_options(yield_per=ROWS_AT_ONCE) as connection:
        for row in connection.execute(_query):
            key = master.unwrap(row.wrapped, row.customer, row.key_number)
            apart = read_apart(key, row.payload, row.record_id)
            yield Monitored(apart.decision_id, row.customer, apart.attributes)
