"""Tests for `cde_assets.erasing` and `cde_assets.derived_rows`: an erased customer is in no table either."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cde_assets.derived_rows import drop_customer_rows
from cde_assets.erasing import Erasing
from cde_domain.portfolio import Portfolio, PortfolioError, Retention, load_portfolio
from cde_serving.decision_log import DecisionLog
from cde_serving.records.record import Event
from cde_serving.settings import Settings
from tests.serving.helpers import NOON, RECORD, numbered

DAYS = Retention(days=100, reason="a law of the test")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, portfolio="german_credit", _env_file=None)


@pytest.fixture
def portfolio() -> Portfolio:
    return replace(load_portfolio("german_credit"), retention=DAYS)


@pytest.fixture
def log(settings: Settings) -> Iterator[DecisionLog]:
    """A log with a decision of each of three customers."""
    with closing(DecisionLog.open(settings, "german_credit")) as log:

        async def fill() -> None:
            for number in range(3):
                payload = RECORD.payload.__replace__(customer_id=f"customer-{number}")
                await log.record(numbered(number, payload=payload))

        asyncio.run(fill())
        yield log


def token(log: DecisionLog, number: int) -> str:
    return log.master.token("customer", "default", f"customer-{number}")


@pytest.fixture
def tables(settings: Settings, log: DecisionLog) -> Path:
    """Batch scores of two days by customer id, outcomes by token, and a table of nobody."""
    folder = settings.portfolio_home("german_credit")
    scores = folder / "batch" / "scores"
    scores.mkdir(parents=True)
    ids = [f"customer-{number % 3}" for number in range(9)]
    for day in ("2026-03-01", "2026-03-02"):
        table = pa.table({"customer_id": ids, "score": [0.5] * 9}).replace_schema_metadata({"model": "m-1"})
        pq.write_table(table, scores / f"{day}.parquet")
    pq.write_table(
        pa.table({"customer": [token(log, number) for number in range(3)], "repaid": [1, 0, 1]}),
        folder / "outcomes.parquet",
    )
    pq.write_table(pa.table({"bucket": [1, 2]}), folder / "counts.parquet")
    return folder


def rows(folder: Path, column: str) -> dict[str, list]:
    files = {path.name: pq.ParquetFile(path).read() for path in sorted(folder.rglob("*.parquet"))}
    return {name: table[column].to_pylist() for name, table in files.items() if column in table.column_names}


def erasing(log: DecisionLog, settings: Settings, portfolio: Portfolio, days: int = 0) -> Erasing:
    return Erasing(log, settings, portfolio, by="person:officer", clock=lambda: NOON + timedelta(days=days))


def test_a_customer_who_asks_is_dropped_from_every_table_at_once(
    log: DecisionLog, settings: Settings, portfolio: Portfolio, tables: Path
) -> None:
    """The law keeps the decision for a while, not what was computed from it."""
    untouched = (tables / "counts.parquet").read_bytes()
    done, lost = erasing(log, settings, portfolio).erase("customer-1", at_once=False)

    assert (0, 7) == (done.shredded, lost)
    assert {"2026-03-01.parquet", "2026-03-02.parquet"} == rows(tables, "score").keys()
    assert all("customer-1" not in ids and len(ids) == 6 for ids in rows(tables, "customer_id").values())
    assert [token(log, 0), token(log, 2)] == rows(tables, "customer")["outcomes.parquet"]
    assert untouched == (tables / "counts.parquet").read_bytes()
    assert pq.read_schema(tables / "batch" / "scores" / "2026-03-01.parquet").metadata == {b"model": b"m-1"}
    assert b"customer-1" not in b"".join(path.read_bytes() for path in tables.rglob("*.parquet*"))


def test_what_a_model_learned_from_stays_as_it_was_signed(
    log: DecisionLog, settings: Settings, portfolio: Portfolio, tables: Path
) -> None:
    """It is the loan book's; without one of its rows the promoted model could not be verified."""
    learned = tables / "models" / "d1" / "learned_from.parquet"
    learned.parent.mkdir(parents=True)
    pq.write_table(pa.table({"customer_id": ["customer-1"]}), learned)
    before = learned.read_bytes()
    erasing(log, settings, portfolio).erase("customer-1", at_once=True)

    assert before == learned.read_bytes()


def test_what_is_due_is_shredded_and_what_came_back_into_a_table_is_dropped(
    log: DecisionLog, settings: Settings, portfolio: Portfolio, tables: Path
) -> None:
    """A batch may have been written again between the request and the night."""
    erasing(log, settings, portfolio).erase("customer-1", at_once=False)
    again = pa.table({"customer_id": ["customer-1", "customer-2"], "score": [0.1, 0.2]})
    pq.write_table(again, tables / "batch" / "scores" / "2026-03-03.parquet")

    assert (0, 1) == erasing(log, settings, portfolio, days=1).erase_due()
    assert (0, 0) == erasing(log, settings, portfolio, days=1).erase_due()
    assert (1, 0) == erasing(log, settings, portfolio, days=9999).erase_due()
    assert ["customer-2"] == rows(tables, "customer_id")["2026-03-03.parquet"]


def test_a_customer_who_came_back_keeps_the_rows_of_the_new_application(
    log: DecisionLog, settings: Settings, portfolio: Portfolio, tables: Path
) -> None:
    erasing(log, settings, portfolio).erase("customer-1", at_once=True)
    payload = RECORD.payload.__replace__(customer_id="customer-1")
    asyncio.run(log.record(numbered(9, payload=payload)))
    pq.write_table(pa.table({"customer_id": ["customer-1"]}), tables / "new.parquet")

    assert (0, 0) == erasing(log, settings, portfolio).erase_due()


def test_how_long_is_the_portfolios_word_unless_the_settings_say_otherwise(
    log: DecisionLog, settings: Settings, portfolio: Portfolio
) -> None:
    override = settings.model_copy(update={"retention_days": 7})
    assert 100 == erasing(log, settings, portfolio).retention_days
    assert 7 == erasing(log, override, portfolio).retention_days
    assert 1827 == load_portfolio("german_credit").retention.days


@pytest.mark.parametrize("retention", [Retention(days=-1), Retention(days=5, reason="")])
def test_a_retention_without_days_or_reason_is_refused(portfolio: Portfolio, retention: Retention) -> None:
    with pytest.raises(PortfolioError, match="retention needs days"):
        replace(portfolio, retention=retention)


def test_a_file_that_cannot_be_written_stays_whole(tables: Path, log: DecisionLog, monkeypatch) -> None:
    """Half a table would be worse than a row too many, which is told."""

    def fail(*_: object) -> None:
        raise OSError("disk full")

    before = (tables / "outcomes.parquet").read_bytes()
    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        drop_customer_rows(tables, {token(log, 1)}, lambda *_: "")

    assert before == (tables / "outcomes.parquet").read_bytes()
    assert not list(tables.rglob("*.unfinished"))


def test_another_tenants_customer_of_the_same_id_keeps_its_rows(tables: Path, log: DecisionLog) -> None:
    table = pa.table({"customer_id": ["customer-1", "customer-1", None], "tenant": ["default", "other", "default"]})
    pq.write_table(table, tables / "tenants.parquet")
    drop_customer_rows(tables, {token(log, 1)}, lambda tenant, one: log.master.token("customer", tenant, one))

    assert [("other", "customer-1"), ("default", None)] == [
        (row["tenant"], row["customer_id"]) for row in pq.ParquetFile(tables / "tenants.parquet").read().to_pylist()
    ]


def test_an_erasure_of_another_tenants_customer_is_noted_under_that_tenant(
    log: DecisionLog, settings: Settings, portfolio: Portfolio
) -> None:
    asyncio.run(log.record(numbered(7, tenant="other")))
    seen: list[Event] = []
    write = log.note

    async def note(event: Event) -> None:
        seen.append(event)
        await write(event)

    log.note = note  # type: ignore[method-assign]
    erasing(log, settings, portfolio).erase("customer-1", at_once=False, tenant="other")
    erasing(log, settings, portfolio, days=9999).erase_due()

    assert [("restriction", "other"), ("erasure", "other")] == [(event.kind, event.tenant) for event in seen]
