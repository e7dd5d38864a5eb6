"""What follows a decision: a person's review of it, and what became of the loan.

Both are records of their own in the chain, about a decision, sealed with the key that the decision was sealed with. A
correction is one more record; nothing is overwritten.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, RowMapping

from cde_serving.records.chain import FORMAT
from cde_serving.records.record import DEFAULT_TENANT, ErasedError, UnreadableRecordError
from cde_serving.records.schema import customer_keys, records
from cde_serving.records.vault import CustomerKey, MasterKey, VaultError, seal, unseal

Verdict = Literal["APPROVED", "REJECTED"]
LoanOutcome = Literal["repaid", "defaulted"]

FOLLOW_UPS = ("review", "outcome")
ROWS_AT_ONCE = 500


class UnknownDecisionError(LookupError):
    """There is no such decision of this tenant."""


class Reason(msgspec.Struct, frozen=True):
    """A principal reason as the applicant reads it, with its code of the portfolio's catalogue."""

    code: str
    text: str


class Review(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="review"):
    """A named person's verdict on a decision; a rejection names 1 to 4 principal reasons, most important first."""

    record_id: str
    decision_id: str
    at: str
    reviewer: str
    verdict: Verdict
    reason: str
    reasons: tuple[Reason, ...] = ()


class LoanResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="outcome"):
    """What became of a loan, known since `date` (ISO 8601)."""

    record_id: str
    decision_id: str
    at: str
    outcome: LoanOutcome
    date: str


Content = Review | LoanResult

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Content).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """A review or an outcome to be recorded; `answer` is its content, and exactly what is answered."""

    content: Content
    answer: bytes
    portfolio: str
    tenant: str = DEFAULT_TENANT
    idempotency_key: str | None = None
    fingerprint: str | None = None


_subjects = (
    sa.select(
        records.c.record_id,
        records.c.tenant,
        records.c.customer,
        records.c.key_number,
        customer_keys.c.wrapped,
        customer_keys.c.restricted_at,
    )
    .join(
        customer_keys,
        sa.and_(records.c.customer == customer_keys.c.customer, records.c.key_number == customer_keys.c.number),
    )
    .where(records.c.kind == "decision")
)


def follow_up_rows(
    connection: Connection,
    master: MasterKey,
    entries: Sequence[tuple[FollowUp, str | None]],
    now: str,
) -> list[dict[str, Any] | LookupError | VaultError]:
    """
    The rows of follow-ups with their idempotency tokens, not yet chained, or why one cannot be recorded.

    The decisions' keys are asked for in the transaction that records: no key is shredded in between, and none is made
    anew. Being used keeps a key as a decision does.
    """
    if not entries:
        return []
    wanted = sorted({entry.content.decision_id for entry, _ in entries})
    query = _subjects.where(records.c.record_id.in_(wanted)).order_by(customer_keys.c.customer)
    found = {row["record_id"]: row for row in connection.execute(query.with_for_update(of=customer_keys)).mappings()}
    rows = [_row(master, entry, token, found.get(entry.content.decision_id), now) for entry, token in entries]
    for row in rows:
        if isinstance(row, dict):
            of_key = (customer_keys.c.customer == row["customer"], customer_keys.c.number == row["key_number"])
            connection.execute(sa.update(customer_keys).where(*of_key).values(last_used_at=now))
    return rows


def _row(
    master: MasterKey, entry: FollowUp, token: str | None, subject: RowMapping | None, now: str
) -> dict[str, Any] | LookupError | VaultError:
    if subject is None or subject["tenant"] != entry.tenant:
        return UnknownDecisionError(entry.content.decision_id)
    try:
        key = _key(master, subject)
    except (ErasedError, VaultError) as error:
        return error
    content = entry.content
    review = content if isinstance(content, Review) else None
    return {
        **dict.fromkeys(column.name for column in records.columns),
        "record_id": content.record_id,
        "format": FORMAT,
        "kind": "review" if review else "outcome",
        "tenant": entry.tenant,
        "portfolio": entry.portfolio,
        "applied_at": content.at,
        "recorded_at": now,
        "customer": subject["customer"],
        "key_number": key.number,
        "idempotency": token,
        "fingerprint": entry.fingerprint,
        "decision": review.verdict if review else None,
        "reason_codes": encode([reason.code for reason in review.reasons]).decode() if review else None,
        "payload": seal(key.secret, entry.answer, content.record_id),
        "about": content.decision_id,
    }


def _key(master: MasterKey, row: RowMapping) -> CustomerKey:
    if row["wrapped"] is None:
        raise ErasedError("the customer's data was erased")
    if row["restricted_at"] is not None:
        raise ErasedError("the customer's data is kept by law alone and no longer used")
    return CustomerKey(row["key_number"], master.unwrap(row["wrapped"], row["customer"], row["key_number"]))


class FollowUpStore:
    """The reviews and outcomes in a database, read with the master key."""

    def __init__(self, engine: Engine, master: MasterKey) -> None:
        self._engine = engine
        self._master = master

    def about(self, decision_id: str, tenant: str = DEFAULT_TENANT) -> tuple[Content, ...]:
        """
        All that follows a decision, oldest first.

        Raises:
            ErasedError: the customer's data was erased or is restricted.
            UnreadableRecordError: a record was changed.
        """
        query = _follow_ups.where(records.c.about == decision_id, records.c.tenant == tenant)
        with self._engine.connect() as connection:
            return tuple(decode(self._open(row)) for row in connection.execute(query).mappings())

    def find(self, idempotency_key: str, tenant: str = DEFAULT_TENANT) -> tuple[bytes, str | None] | None:
        """The answer and fingerprint of what was recorded under an idempotency key, or None; raises as `about`."""
        token = self._master.token("idempotency key", tenant, idempotency_key)
        with self._engine.connect() as connection:
            row = connection.execute(_follow_ups.where(records.c.idempotency == token)).mappings().first()
        return (self._open(row), row["fingerprint"]) if row else None

    def recorded_between(self, first: str, end: str) -> Iterator[tuple[str, Content]]:
        """
        Tenant and content of what was recorded from `first` until before `end` (ISO 8601), oldest first.

        What was erased or is restricted is left out.
        """
        query = _follow_ups.where(
            records.c.about.is_not(None), records.c.recorded_at >= first, records.c.recorded_at < end
        )
        with self._engine.connect().execution_options(yield_per=ROWS_AT_ONCE) as connection:
            for row in connection.execute(query).mappings():
                try:
                    yield row["tenant"], decode(self._open(row))
                except ErasedError:
                    continue

    def _open(self, row: RowMapping) -> bytes:
        try:
            return unseal(_key(self._master, row).secret, row["payload"], row["record_id"])
        except VaultError as error:
            raise UnreadableRecordError(row["about"], error) from None


_follow_ups = (
    sa.select(records, customer_keys.c.wrapped, customer_keys.c.restricted_at)
    .join(
        customer_keys,
        sa.and_(records.c.customer == customer_keys.c.customer, records.c.key_number == customer_keys.c.number),
        isouter=True,
    )
    .where(records.c.kind.in_(FOLLOW_UPS))
    .order_by(records.c.recorded_at, records.c.chain, records.c.sequence)
)
