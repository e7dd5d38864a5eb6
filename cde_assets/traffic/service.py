"""The running service as a lender's front office uses it: over HTTP, with retries that double nothing."""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import httpx
import stamina

TRIES = 5
BUSY = (409, 429, 503)  # another try may help; every request has an idempotency key, so that it cannot double
LONGEST_WAIT = 5.0
SCORE, DECISIONS = "/api/v1/credit/score", "/api/v1/credit/decisions"
KEY_COUNTS_WITHIN = 3.0


class TrafficError(RuntimeError):
    """Why no more applications can be sent; the message says the way out."""


class KeyRefusedError(TrafficError):
    """The service does not know the API key."""


class _BusyError(Exception):
    """An answer after which another try may help."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class Service:
    """A service at a base URL, asked with an API key (None where authentication is off)."""

    def __init__(self, url: str, key: str | None, *, connections: int) -> None:
        self._url = url
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=15.0,
            limits=httpx.Limits(max_connections=connections),
            headers={"authorization": f"Bearer {key}"} if key else {},
        )
        stamina.instrumentation.set_on_retry_hooks([])  # what was asked again is no news

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def check(self, portfolio: str, now: datetime | None) -> None:
        """
        Find out before anything is sent whether the service can take applications of a portfolio.

        It must go by the same clock: `now` is what the clock file tells, None where there is none.

        Raises:
            TrafficError: it is away, refuses the key, serves nothing or another portfolio, or goes by another clock.
        """
        ready: Mapping[str, Any] = (await self._asked("GET", "/ready")).json()
        if ready.get("portfolio") is None:
            raise TrafficError(
                f"the service at {self._url} is not ready: {ready.get('status')}. "
                f"Run: {ready.get('run', 'cde why-not')}"
            )
        if ready["portfolio"] != portfolio:
            raise TrafficError(f"the service at {self._url} decides for {ready['portfolio']}, not for {portfolio}")
        if now is None and "clock" in ready:
            raise TrafficError(
                f"the service at {self._url} goes by a file that says {ready['clock']}: set the same CDE_CLOCK_FILE"
            )
        if now is not None and ("clock" not in ready or datetime.fromisoformat(ready["clock"]) != now):
            told = f"its clock says {ready['clock']}" if "clock" in ready else "it goes by the machine's clock"
            raise TrafficError(
                f"the service at {self._url} does not follow this CDE_CLOCK_FILE: {told}. Start it with the same file"
            )
        await self._wait_until_known()

    async def post(self, path: str, body: Mapping[str, Any], key: str) -> httpx.Response:
        """
        Send a body under an idempotency key; busy answers and broken connections are tried again.

        Raises:
            TrafficError: nothing answers any more, or the API key is refused.
        """
        return await self._asked("POST", path, json=dict(body), headers={"idempotency-key": key})

    async def _wait_until_known(self) -> None:
        """A new API key counts within a second; one that is refused for longer is none."""
        until = time.monotonic() + KEY_COUNTS_WITHIN
        while time.monotonic() < until:
            try:
                await self._asked("GET", DECISIONS, headers={"idempotency-key": "traffic"})
            except KeyRefusedError:
                await asyncio.sleep(0.2)
            else:
                return
        await self._asked("GET", DECISIONS, headers={"idempotency-key": "traffic"})

    async def _asked(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            async for attempt in stamina.retry_context(on=_wait, attempts=TRIES, timeout=None, wait_max=LONGEST_WAIT):
                with attempt:
                    response = await self._client.request(method, path, **content)
                    if response.status_code in BUSY and path != "/ready":
                        raise _BusyError(response)
                    return self._admitted(response)
        except _BusyError as busy:
            return busy.response
        except httpx.TransportError as error:
            raise TrafficError(
                f"the service at {self._url} does not answer ({type(error).__name__}). Start it with `make up` or "
                "`make serve`, and run this again: nothing is sent twice"
            ) from error
        raise AssertionError("unreachable")

    def _admitted(self, response: httpx.Response) -> httpx.Response:
        if response.status_code == 401:
            raise KeyRefusedError(
                f"the service at {self._url} refuses the API key. Make one that may score with `cde keys create`, and "
                "give it as CDE_API_KEY"
            )
        if response.status_code == 403 and response.request.method == "POST":
            raise TrafficError("the API key may not score: make one with `cde keys create --scope score`")
        return response


def _wait(error: Exception) -> bool | float:
    if isinstance(error, _BusyError):
        asked = error.response.headers.get("retry-after", "")
        return min(float(asked), LONGEST_WAIT) if asked.isdecimal() else True
    return isinstance(error, httpx.TransportError)
