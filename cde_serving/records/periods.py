"""What was decided in a period and what became of it, read in the order of time, a few records at once.

An id begins with its time, so the index of ids finds a day's decisions among millions, and no decision writes to an
index that only monitoring needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine, RowMapping

from cde_serving.records.follow_ups import LoanResult, decode
from cde_serving.records.monitoring import read_apart
from cde_serving.records.record import Record
from cde_serving.records.schema import customer_keys, records
from cde_serving.records.store import opened
from cde_serving.records.vault import MasterKey, VaultError, unseal

ROWS_AT_ONCE = 500
IDS_AT_ONCE = 500

_about = records.alias("about")
_apart = records.alias("apart")

OUTCOMES: sa.ColumnElement[bool] = sa.literal_column("records.kind = 'outcome'", sa.Boolean)  # as the index has it


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with its customer's token, and the protected attributes that came with it."""

    record: Record
    customer: str
    protected: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of a loan, with the decision's tenant, customer's token and time (ISO 8601)."""

    result: LoanResult
    tenant: str
    customer: str
    applied_at: str
    recorded_at: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Of which tenant and customer (a token) a decision is, when it was taken, and what stands: the last verdict."""

    decision_id: str
    tenant: str
    customer: str
    applied_at: str
    decision: str
    readable: bool  # neither erased nor restricted


class Period:
    """
    The decisions of one portfolio from one day to another (UTC, both included), erased and restricted ones left out.

    `unreadable` counts the records that were left out because they were changed; `verify_log` says which.
    """

    def __init__(self, engine: Engine, master: MasterKey, portfolio: str, first: date, last: date) -> None:
        self.unreadable = 0
        self._engine = engine
        self._master = master
        self._portfolio = portfolio
        self._first, self._end = first_id(first), first_id(last + timedelta(days=1))

    def decisions(self) -> Iterator[Decided]:
        """Decisions and shadow decisions, in the order of their ids, which is that of time to the millisecond."""
        for row in self._rows(_decided.where(*self._range(records), records.c.portfolio == self._portfolio)):
            try:
                record = opened(self._master, row)
                protected = self._protected(row)
            except VaultError:
                self.unreadable += 1
            else:
                yield Decided(record, row["customer"], protected)

    def outcomes(self) -> Iterator[Followed]:
        """What became of the loans, those of one decision one after the other, in the order of their recording."""
        query = _followed.where(*self._range(_about), _about.c.portfolio == self._portfolio)
        for row in self._rows(query):
            try:
                key = self._master.unwrap(row["wrapped"], row["customer"], row["key_number"])
                result = decode(unseal(key, row["payload"], row["record_id"]))
            except (VaultError, msgspec.DecodeError):
                self.unreadable += 1
                continue
            if isinstance(result, LoanResult):
                yield Followed(result, row["tenant"], row["customer"], row["decided_at"], row["recorded_at"])

    def _rows(self, query: sa.Select) -> Iterator[RowMapping]:
        with self._engine.connect().execution_options(yield_per=ROWS_AT_ONCE) as connection:
            yield from connection.execute(query).mappings()

    def _range(self, table: sa.FromClause) -> tuple[sa.ColumnElement[bool], ...]:
        return table.c.record_id >= self._first, table.c.record_id < self._end

    def _protected(self, row: RowMapping) -> Mapping[str, str]:
        if row["apart"] is None:
            return {}
        key = self._master.unwrap(row["wrapped"], row["customer"], row["key_number"])
        apart = read_apart(key, row["apart"], row["apart_id"])
        if apart.decision_id != row["record_id"]:
            raise VaultError("protected attributes were moved to another decision")
        return apart.attributes


def first_id(day: date) -> str:
    """The least id that a record of a day (UTC) can have."""
    milliseconds = int(datetime.combine(day, time(), UTC).timestamp()) * 1000
    return f"{milliseconds << 80:032x}"


def day_of(record_id: str) -> date:
    """
    The day (UTC) that an id begins with.

    Raises:
        ValueError: it is no id of a record.
    """
    if len(record_id) != 32:
        raise ValueError("an id has 32 hexadecimal digits")
    try:
        return datetime.fromtimestamp((int(record_id, 16) >> 80) / 1000, UTC).date()
    except (OverflowError, OSError) as error:
        raise ValueError("no day lies so far away") from error


def first_day(engine: Engine, portfolio: str) -> date | None:
    """The day of a portfolio's first decision, None before it."""
    query = sa.select(records.c.record_id).where(records.c.kind == "decision", records.c.portfolio == portfolio)
    with engine.connect() as connection:
        found = connection.execute(query.order_by(records.c.record_id).limit(1)).scalar()
    return day_of(found) if found else None


def count_records(engine: Engine, days: Sequence[date]) -> list[int]:
    """How many records of any kind bear an id of each day: when that has changed, the day was not read whole."""
    return _counts(engine, days, records.c.record_id, sa.true())


def count_outcomes(engine: Engine, days: Sequence[date]) -> list[int]:
    """How many outcomes are recorded about the decisions of each day, those of erased customers too."""
    return _counts(engine, days, records.c.about, OUTCOMES)


def _counts(
    engine: Engine, days: Sequence[date], column: sa.ColumnElement[str], which: sa.ColumnElement[bool]
) -> list[int]:
    begins, ends = sa.bindparam("begins", type_=sa.String), sa.bindparam("ends", type_=sa.String)
    query = sa.select(sa.func.count()).select_from(records).where(which, column >= begins, column < ends)
    with engine.connect() as connection:
        return [
            int(
                connection.execute(
                    query, {"begins": first_id(day), "ends": first_id(day + timedelta(days=1))}
                ).scalar_one()
            )
            for day in days
        ]


def standing(engine: Engine, portfolio: str, ids: Sequence[str]) -> dict[str, Standing]:
    """What is known without a key of those of some ids that are decisions of a portfolio."""
    found: dict[str, Standing] = {}
    with engine.connect() as connection:
        for first in range(0, len(ids), IDS_AT_ONCE):
            part = list(ids[first : first + IDS_AT_ONCE])
            wanted = _standing.where(records.c.record_id.in_(part), records.c.portfolio == portfolio)
            for row in connection.execute(wanted).mappings():
                readable = row["wrapped"] is not None and row["restricted_at"] is None
                found[row["record_id"]] = Standing(
                    row["record_id"], row["tenant"], row["customer"], row["applied_at"], row["decision"], readable
                )
            reviews = _reviews.where(records.c.about.in_(part))
            for about, verdict in connection.execute(reviews):  # the last one stands
                if about in found:
                    found[about] = _reviewed(found[about], verdict)
    return found


def _reviewed(decided: Standing, verdict: str) -> Standing:
    return Standing(
        decided.decision_id, decided.tenant, decided.customer, decided.applied_at, verdict, decided.readable
    )


def _key_of(table: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.customer == customer_keys.c.customer, table.c.key_number == customer_keys.c.number)


_whole = sa.and_(customer_keys.c.wrapped.is_not(None), customer_keys.c.restricted_at.is_(None))

# What came with a decision was chained right behind it.
_decided = (
    sa.select(
        records,
        customer_keys.c.wrapped,
        customer_keys.c.restricted_at,
        _apart.c.record_id.label("apart_id"),
        _apart.c.payload.label("apart"),
    )
    .join(customer_keys, _key_of(records))
    .join(
        _apart,
        sa.and_(
            _apart.c.chain == records.c.chain,
            _apart.c.sequence == records.c.sequence + 1,
            _apart.c.kind == "protected",
        ),
        isouter=True,
    )
    .where(records.c.kind.in_(("decision", "shadow")), _whole)
    .order_by(records.c.record_id)
)

_followed = (
    sa.select(records, customer_keys.c.wrapped, _about.c.applied_at.label("decided_at"))
    .select_from(_about)
    .join(records, sa.and_(records.c.about == _about.c.record_id, OUTCOMES))
    .join(customer_keys, _key_of(records))
    .where(_about.c.kind == "decision", _whole)
    .order_by(_about.c.record_id, records.c.recorded_at, records.c.chain, records.c.sequence)
)

_standing = (
    sa.select(
        records.c.record_id,
        records.c.tenant,
        records.c.customer,
        records.c.applied_at,
        records.c.decision,
        customer_keys.c.wrapped,
        customer_keys.c.restricted_at,
    )
    .join(customer_keys, _key_of(records), isouter=True)
    .where(records.c.kind == "decision")
)

_reviews = (
    sa.select(records.c.about, records.c.decision)
    .where(records.c.kind == "review")
    .order_by(records.c.recorded_at, records.c.chain, records.c.sequence)
)
