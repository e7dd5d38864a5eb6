"""Tests for `cde_serving.records.erasure`: a customer's right, the lender's duty, and a chain that survives both."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from cde_serving.decision_log import DecisionLog, ErasedError
from cde_serving.records import database
from cde_serving.records.erasure import CopiesRemainError, Eraser, UnknownCustomerError
from cde_serving.records.record import DEFAULT_TENANT, Event
from cde_serving.records.schema import customer_keys
from cde_serving.records.verify import verify_log
from cde_serving.signing import TrustedKeys
from tests.serving.helpers import NOON, RECORD, SCORE, Desk, numbered, open_log

DAY = timedelta(days=1)


class Calendar:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def log(log_url: str, tmp_path: Path, calendar: Calendar) -> Iterator[DecisionLog]:
    """A log with two decisions of customer-1 and one of customer-2."""
    with closing(open_log(tmp_path, log_url, clock=calendar)) as log:

        async def fill() -> None:
            await log.record(numbered(1))
            await log.record(numbered(2))
            await log.record(numbered(3, payload=RECORD.payload.__replace__(customer_id="customer-2")))

        asyncio.run(fill())
        yield log


def eraser(log: DecisionLog, calendar: Calendar, days: int = 100) -> Eraser:
    return Eraser(log, "loans", retention_days=days, by="person:officer", clock=calendar)


def readable(log: DecisionLog) -> list[int]:
    """The numbers of the decisions that can be read."""
    found = []
    for number in range(1, 10):
        try:
            record = log.get(f"{number:032x}", DEFAULT_TENANT)
        except ErasedError:
            continue
        if record:
            found.append(number)
    return found


def problems(log: DecisionLog, folder: Path) -> tuple[str, ...]:
    return verify_log(log.read_engine, folder / "checkpoints.jsonl", TrustedKeys.read(folder / "log.pub")).problems


def test_erasing_now_shreds_the_customers_key(log: DecisionLog, calendar: Calendar, tmp_path: Path) -> None:
    """Nothing of this customer can be read again, everything of others can, and the chain still verifies."""
    done = asyncio.run(eraser(log, calendar).erase("customer-1", at_once=True))

    assert (1, None) == (done.shredded, done.erase_after)
    assert [3] == readable(log)
    assert () == problems(log, tmp_path)


def test_a_customer_is_restricted_at_once_and_shredded_when_the_law_allows(
    log: DecisionLog, calendar: Calendar, tmp_path: Path
) -> None:
    """The duty to keep counts from the last decision."""
    done = asyncio.run(eraser(log, calendar).erase("customer-1"))

    assert (0, "2026-06-10T12:00:00.000000Z") == (done.shredded, done.erase_after)
    assert [3] == readable(log)
    calendar.now = NOON + 99 * DAY
    assert 0 == asyncio.run(eraser(log, calendar).shred_due())
    calendar.now = NOON + 101 * DAY
    assert 1 == asyncio.run(eraser(log, calendar).shred_due())
    with log.read_engine.connect() as connection:
        assert (
            1 == connection.execute(sa.select(customer_keys).where(customer_keys.c.wrapped.is_(None))).all().__len__()
        )
    assert () == problems(log, tmp_path)


def test_what_need_not_be_kept_any_more_is_shredded_with_the_request(log: DecisionLog, calendar: Calendar) -> None:
    """A customer who asks after the retention waits for nothing."""
    calendar.now = NOON + 101 * DAY

    assert 1 == asyncio.run(eraser(log, calendar).erase("customer-1")).shredded


def test_the_law_keeps_a_customers_decisions_from_the_last_one_on(log: DecisionLog, calendar: Calendar) -> None:
    """One key seals them all, so that the first is kept as long as the last."""
    calendar.now += 60 * DAY
    asyncio.run(log.record(numbered(4)))

    erasure = asyncio.run(eraser(log, calendar).erase("customer-1"))

    assert erasure.erase_after is not None
    assert calendar.now + 100 * DAY == datetime.fromisoformat(erasure.erase_after)


def test_a_restricted_customer_can_be_erased_now(log: DecisionLog, calendar: Calendar) -> None:
    """The officer may find that no duty applies after all."""
    asyncio.run(eraser(log, calendar).erase("customer-1"))

    assert 1 == asyncio.run(eraser(log, calendar).erase("customer-1", at_once=True)).shredded


def test_a_customer_who_comes_back_starts_anew(log: DecisionLog, calendar: Calendar, tmp_path: Path) -> None:
    """The new application is readable, the old ones stay erased, and a second erasure takes the new one too."""
    asyncio.run(eraser(log, calendar).erase("customer-1", at_once=True))
    asyncio.run(log.record(numbered(4)))
    assert [3, 4] == readable(log)

    asyncio.run(eraser(log, calendar).erase("customer-1", at_once=True))

    assert [3] == readable(log)
    assert () == problems(log, tmp_path)


@pytest.mark.parametrize(
    ("applies_after", "at_once", "shredded", "kept_until"),
    [
        ("restriction", False, 0, "2026-06-10T12:00:00.000000Z"),
        ("restriction", True, 1, None),
        ("erasure", True, 1, None),
    ],
)
def test_a_customer_who_applies_while_being_erased_starts_anew(
    log: DecisionLog,
    calendar: Calendar,
    monkeypatch: pytest.MonkeyPatch,
    applies_after: str,
    at_once: bool,
    shredded: int,
    kept_until: str | None,
) -> None:
    """The officer is told what became of what was there, whenever the new application comes."""
    note = log.note

    async def note_and_apply(event: Event) -> None:
        await note(event)
        if event.kind == applies_after:
            await log.record(numbered(4))

    monkeypatch.setattr(log, "note", note_and_apply)

    done = asyncio.run(eraser(log, calendar).erase("customer-1", at_once=at_once))

    assert (shredded, kept_until) == (done.shredded, done.erase_after)
    assert [3, 4] == readable(log)


def test_an_unknown_customer_is_told(log: DecisionLog, calendar: Calendar) -> None:
    """A mistyped id is no success."""
    with pytest.raises(UnknownCustomerError):
        asyncio.run(eraser(log, calendar).erase("customer-l"))


def test_another_tenants_customer_of_the_same_id_stays(log: DecisionLog, calendar: Calendar) -> None:
    """Tokens and keys are a tenant's own."""
    asyncio.run(log.record(numbered(5, tenant="other")))

    asyncio.run(eraser(log, calendar).erase("customer-1", at_once=True))

    record = log.get(f"{5:032x}", "other")
    assert record is not None
    assert "customer-1" == record.payload.customer_id
    assert log.get(f"{5:032x}", DEFAULT_TENANT) is None


def test_a_shredded_key_is_nowhere_in_the_file(tmp_path: Path, calendar: Calendar) -> None:
    """Neither in a free page of the database nor in its write-ahead log, once that is folded in."""
    with closing(open_log(tmp_path, clock=calendar)) as log:

        async def fill() -> None:
            for number in range(20):
                payload = RECORD.payload.__replace__(customer_id=f"customer-{number}")
                await log.record(numbered(number, payload=payload))

        asyncio.run(fill())
        token = log.master.token("customer", "default", "customer-7")
        with log.read_engine.connect() as connection:
            query = sa.select(customer_keys.c.wrapped).where(customer_keys.c.customer == token)
            wrapped = connection.execute(query).scalar_one()
        asyncio.run(eraser(log, calendar).erase("customer-7", at_once=True))

    stored = b"".join(path.read_bytes() for path in tmp_path.glob("decisions.sqlite*"))
    assert not [start for start in range(len(wrapped) - 8) if wrapped[start : start + 8] in stored]


def test_a_shredded_key_is_nowhere_while_the_service_runs(tmp_path: Path, calendar: Calendar) -> None:
    """Not in the write-ahead log of a database that two writers have open, and not in a page that was split."""
    with closing(open_log(tmp_path, clock=calendar)) as service, closing(open_log(tmp_path, clock=calendar)) as log:

        async def fill() -> None:
            for number in range(40):  # more than a page holds
                payload = RECORD.payload.__replace__(customer_id=f"customer-{number}")
                await service.record(numbered(number, payload=payload))

        asyncio.run(fill())
        with log.read_engine.connect() as connection:
            keys = dict(connection.execute(sa.select(customer_keys.c.customer, customer_keys.c.wrapped)).all())
        for number in range(0, 40, 8):
            asyncio.run(eraser(log, calendar).erase(f"customer-{number}"))
        for number in range(0, 40, 8):
            asyncio.run(eraser(log, calendar).erase(f"customer-{number}", at_once=True))
        asyncio.run(service.record(numbered(100)))
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("decisions.sqlite*"))

    wrapped = [keys[service.master.token("customer", "default", f"customer-{number}")] for number in range(0, 40, 8)]
    assert not [one for one in wrapped if any(one[start : start + 8] in stored for start in range(len(one) - 8))]


def test_copies_that_cannot_be_removed_are_told(
    tmp_path: Path, calendar: Calendar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that holds the write-ahead log makes an erasure incomplete; once it is gone, asking again completes."""
    monkeypatch.setattr(database, "FOLDING_SECONDS", 0.0)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0)
    with closing(open_log(tmp_path, clock=calendar)) as log:
        asyncio.run(log.record(numbered(1)))
        with log.read_engine.connect() as reader:
            reader.execute(sa.select(customer_keys)).all()
            with pytest.raises(CopiesRemainError, match="run this again"):
                asyncio.run(eraser(log, calendar).erase("customer-1", at_once=True))

        assert 0 == asyncio.run(eraser(log, calendar).erase("customer-1", at_once=True)).shredded
        assert b"" == (tmp_path / "decisions.sqlite-wal").read_bytes()


def test_the_database_holds_no_personal_value(desk: Desk, tmp_path: Path) -> None:
    """Name, income and answer are unreadable without the master key."""
    desk.score(customer_id="Jane-Doe-4711", annual_income=61234.56, note="canary in the note")
    desk.scorer.log.close()

    stored = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("decisions.sqlite*")))
    assert b"APPROVED" in stored
    assert not any(value in stored for value in (b"Jane-Doe-4711", b"61234.56", b"canary", b"contributions"))


def test_an_erased_decision_is_gone_over_http(desk: Desk) -> None:
    """410 by id, by key, and for the same request again; never a second decision."""
    sent = {"json": desk.example, "headers": {"idempotency-key": "k-1"}}
    decision_id = desk.client.post(SCORE, **sent).json()["decision_id"]
    asyncio.run(
        Eraser(desk.scorer.log, "tiny_loans", retention_days=0, by="person:officer").erase("customer-1", at_once=True)
    )

    by_id = desk.client.get(f"/api/v1/credit/decisions/{decision_id}")
    by_key = desk.client.request("GET", "/api/v1/credit/decisions", headers={"idempotency-key": "k-1"})

    assert [410, 410, 410] == [by_id.status_code, by_key.status_code, desk.client.post(SCORE, **sent).status_code]
    assert 1 == desk.scorer.log.count()
