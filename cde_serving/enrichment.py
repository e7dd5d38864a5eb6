"""Asking the credit bureau for what a request leaves out, within a deadline and behind a breaker.

Only a lookup is asked, which changes nothing there and may be repeated. Whatever goes wrong is a fault with a routing
code: the decision is then a person's, and the answer is no later than the deadline. Only our own overload is refused:
the bureau has not failed then, and a person's queue is no place for it.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from datetime import date
from typing import Any, Literal

import httpx
import msgspec
import stamina
from pydantic import BaseModel, ValidationError

from cde_domain.decisions.engine import Routing
from cde_domain.portfolio import Enrichment, Portfolio
from cde_serving.applications import InvalidApplicationError, Problem
from cde_serving.breaker import Breaker
from cde_serving.intake import Intake, take_in

TRIES = 2
PAUSES = 0.05  # of the deadline, between tries
# A lookup costs the event loop a millisecond or two, which count against the deadline of all others at the bureau.
AT_ONCE = 16
PLACE_SECONDS = 2.0  # until a place is free: with a deadline of five an answer is still in time
LAG_SECONDS = 0.02  # that a timer may be late before the event loop, and not the bureau, is what is slow
LONGEST_LAG = 0.5  # that is made up for
LONGEST_ANSWER = 256 * 1024
BUSY = (429, 500, 502, 503, 504)

Result = Literal["fetched", "unavailable", "invalid", "breaker_open"]


class LookupsBusyError(RuntimeError):
    """More lookups wait than can be made in time."""


class _UnavailableError(Exception):
    """No answer, or none that is one; `again`: another try may have better luck; `ours`: we were late to take it."""

    def __init__(self, what: str, *, again: bool = True, ours: bool = False) -> None:
        super().__init__(what)
        self.again = again
        self.ours = ours


class _InvalidError(Exception):
    """An answer that is none."""


class Bureau:
    """
    The bureau behind a URL: `POST {customer_id, applied_on}` gives a report as JSON.

    `deadline` is in seconds and holds for both tries and the pause between them; it does not run while a lookup waits
    for its place among the `AT_ONCE` that are made at a time, nor while the event loop is held up by other work. Only
    an answer of 200 that holds to the model is a report. That nothing is known of a customer is said with an empty
    report, never with a status: a mistyped address would say 404 about everybody.
    """

    def __init__(
        self,
        url: str,
        deadline: float,
        count: Callable[[Result], None] = lambda result: None,
        breaker: Breaker | None = None,
    ) -> None:
        self.breaker = breaker or Breaker()
        self._url = url
        self._deadline = deadline
        self._count = count
        self._places = asyncio.Semaphore(AT_ONCE)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=AT_ONCE)
        self._client = httpx.AsyncClient(timeout=deadline, headers={"accept": "application/json"}, limits=limits)

    async def report(self, customer_id: str, applied_on: date, answer: type[BaseModel]) -> BaseModel | Routing:
        """
        The report, or the routing code of the fault.

        Raises:
            LookupsBusyError: no place was free in time.
        """
        body = msgspec.json.encode({"customer_id": customer_id, "applied_on": applied_on})
        async with self._place():
            if not self.breaker.admits():
                return self._fault(Routing.ENRICHMENT_UNAVAILABLE, "breaker_open")
            try:
                content = await self._asked(body)
            except _InvalidError:
                self.breaker.answered()  # it costs no time: the breaker is there for waiting
                return self._fault(Routing.ENRICHMENT_INVALID, "invalid")
            except _UnavailableError as error:
                if not error.ours:
                    self.breaker.failed()
                return self._fault(Routing.ENRICHMENT_UNAVAILABLE, "unavailable")
        self.breaker.answered()
        try:
            report = answer.model_validate_json(content)
        except (ValidationError, RecursionError):
            return self._fault(Routing.ENRICHMENT_INVALID, "invalid")
        self._count("fetched")
        return report

    def invalid(self) -> Routing:
        """Count a report that held to its model and is yet no part of an application."""
        return self._fault(Routing.ENRICHMENT_INVALID, "invalid")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _fault(self, code: Routing, result: Result) -> Routing:
        self._count(result)
        return code

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Wait for the lookups before this one, unless the bureau is not asked anyway."""
        if self.breaker.open:
            yield
            return
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise LookupsBusyError(f"no place among {AT_ONCE} lookups was free in time") from None
        try:
            yield
        finally:
            self._places.release()

    async def _asked(self, body: bytes) -> bytes:
        longest = self._deadline * PAUSES
        tries = stamina.retry_context(
            on=_may_try_again,
            attempts=TRIES,
            timeout=None,
            wait_initial=longest / 5,
            wait_max=longest,
            wait_jitter=longest * 4 / 5,
        )
        async for attempt in tries:
            with attempt:
                return await self._once(body)
        raise AssertionError("unreachable")

    async def _once(self, body: bytes) -> bytes:
        try:
            # httpx's own limit is from byte to byte, which a slow drip never reaches.
            return await _within(self._deadline * (1 - PAUSES) / TRIES, self._exchange(body))
        except (_UnavailableError, _InvalidError):
            raise
        except Exception as error:  # whatever the client raises, there is no answer
            raise _UnavailableError(type(error).__name__) from None

    async def _exchange(self, body: bytes) -> bytes:
        headers = {"content-type": "application/json"}
        async with self._client.stream("POST", self._url, content=body, headers=headers) as response:
            if response.status_code != 200:
                raise _UnavailableError(str(response.status_code), again=response.status_code in BUSY)
            content = b""
            async for part in response.aiter_bytes():
                content += part
                if len(content) > LONGEST_ANSWER:
                    raise _InvalidError
            return content


class Enricher:
    """Completes applications of portfolios that declare an `enrichment`."""

    def __init__(self, bureau: Bureau) -> None:
        self.bureau = bureau

    def whole(self, portfolio: Portfolio, enrichment: Enrichment, body: bytes) -> Intake | None:
        """
        The application in a body that lacks nothing, or None if the part to be fetched is all that it lacks.

        Raises:
            InvalidApplicationError: the body is no application for other reasons too; nothing is asked then.
        """
        try:
            intake = take_in(portfolio, body)
        except InvalidApplicationError as error:
            others = [problem for problem in error.problems if not _is_missing(problem, enrichment.field)]
            if others:
                raise InvalidApplicationError(others) from None
            return None
        return intake if enrichment.field in intake.application.model_fields_set else None

    async def complete(self, portfolio: Portfolio, enrichment: Enrichment, body: bytes, applied_on: date) -> Intake:
        """The application in a body that lacks nothing but the part to be fetched, completed."""
        given: dict[str, Any] = json.loads(body)
        report = await self.bureau.report(given["customer_id"], applied_on, enrichment.answer)
        if not isinstance(report, Routing):
            part = msgspec.json.decode(report.model_dump_json(exclude_unset=True))
            try:
                filled = take_in(portfolio, msgspec.json.encode({**given, enrichment.field: part}))
                return replace(filled, fetched=(enrichment.field,))
            except InvalidApplicationError:
                report = self.bureau.invalid()
        without = take_in(portfolio, msgspec.json.encode({**given, **enrichment.absent(portfolio.application)}))
        return replace(without, fault=report)


async def _within(seconds: float, exchange: Coroutine[Any, Any, bytes]) -> bytes:
    """What an exchange comes to in some seconds, and in those that the event loop was late to look after it."""
    loop = asyncio.get_running_loop()
    asked = loop.create_task(exchange)
    try:
        until = loop.time() + seconds
        await asyncio.wait([asked], timeout=seconds)
        late = loop.time() - until
        if late > LAG_SECONDS:
            await asyncio.wait([asked], timeout=min(late, LONGEST_LAG))
        if not asked.done():
            raise _UnavailableError("TimeoutError", ours=late > LAG_SECONDS)
        return asked.result()
    finally:
        if not asked.done():
            asked.cancel()
            await asyncio.wait([asked])


def _may_try_again(error: Exception) -> bool:
    return isinstance(error, _UnavailableError) and error.again


def _is_missing(problem: Problem, field: str) -> bool:
    return (problem.field, problem.type) == (field, "missing")
