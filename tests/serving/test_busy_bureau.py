"""Our own load is no failure of the bureau: lookups wait for a place, and a late event loop costs them no time."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from pydantic import BaseModel

from cde_domain.decisions.engine import Routing
from cde_serving import enrichment
from cde_serving.enrichment import Bureau, LookupsBusyError
from cde_serving.routes.refusals import told
from tests.serving.fake_bureau import running_bureau
from tests.serving.helpers import NOON

DEADLINE = 2.0


class Report(BaseModel):
    """Any report."""


def ask_all(bureau: Bureau, count: int, *beside: Coroutine[Any, Any, None]) -> list[Any]:
    """What that many lookups at a moment come to, and how many were made at once at most, last."""
    under_way = most = 0
    exchange = bureau._exchange

    async def counted(body: bytes) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await exchange(body)
        finally:
            under_way -= 1

    bureau._exchange = counted  # type: ignore[method-assign]

    async def ask() -> list[Any]:
        asked = [bureau.report(f"customer-{number}", NOON.date(), Report) for number in range(count)]
        try:
            return (await asyncio.gather(*asked, *beside, return_exceptions=True))[:count]
        finally:
            await bureau.close()

    return [*asyncio.run(ask()), most]


def test_many_lookups_at_once_all_come_to_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is waited for, which is no time that the bureau took."""
    monkeypatch.setattr(enrichment, "PLACE_SECONDS", 20.0)
    with running_bureau() as server:
        server.seconds = 0.05
        *reports, most = ask_all(Bureau(server.url, DEADLINE), 50)

    assert [Report()] * 50 == reports
    assert enrichment.AT_ONCE == most


def test_an_event_loop_that_was_held_up_makes_time_up() -> None:
    """Reports that come just after are taken, nobody is asked again, and the breaker counts nothing."""

    async def hold_up() -> None:
        await asyncio.sleep(0.3)  # all have been asked
        time.sleep(1.2)  # beyond the time of a try

    with running_bureau() as server:
        server.seconds = 1.6
        bureau = Bureau(server.url, DEADLINE)
        *reports, _ = ask_all(bureau, 8, hold_up())

    assert [Report()] * 8 == reports
    assert 8 == len(server.lookups)  # none was thought lost and made again
    assert not bureau.breaker.open


def test_a_lookup_without_a_place_is_refused_and_goes_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """503: the applicant is asked to come again, and the bureau is not blamed."""
    monkeypatch.setattr(enrichment, "PLACE_SECONDS", 0.1)
    with running_bureau() as server:
        server.seconds = 0.5
        bureau = Bureau(server.url, DEADLINE)
        *reports, _ = ask_all(bureau, enrichment.AT_ONCE + 6)

    assert [Report()] * enrichment.AT_ONCE == reports[: enrichment.AT_ONCE]
    refused = reports[enrichment.AT_ONCE :]
    assert [LookupsBusyError] * 6 == [type(error) for error in refused]
    assert 503 == told(refused[0], None)[0]  # type: ignore[arg-type]
    assert not bureau.breaker.open


def test_a_bureau_that_hangs_is_left_alone_whoever_waits() -> None:
    """Those who wait for a place are sent to a person as soon as the breaker opens."""
    with running_bureau() as server:
        server.fault = "time-out"
        bureau = Bureau(server.url, 0.4)
        began = time.monotonic()
        *reports, _ = ask_all(bureau, 60)

        assert time.monotonic() - began < enrichment.PLACE_SECONDS
        assert bureau.breaker.open
    assert [Routing.ENRICHMENT_UNAVAILABLE] * 60 == reports
