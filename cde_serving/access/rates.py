"""How often a key may ask: a fixed window for each key, counted in this process."""

import math
import time
from functools import lru_cache

from limits import RateLimitItem
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from cde_serving.access.keys import ApiKey, rate_of

_rate_of = lru_cache(maxsize=1024)(rate_of)


class TooManyAtOnceError(ValueError):
    """More than a key may ever ask for in one window."""

    def __init__(self, rate: RateLimitItem) -> None:
        super().__init__(f"The API key's rate is {rate}: send no more at once")


class RateUsedUpError(RuntimeError):
    """A key has used up its rate; another try may help after `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__("The API key has used up its rate")
        self.seconds = seconds


class Rates:
    """
    Counts the requests of each key, a batch by its applications.

    `default` is the rate of keys that have none of their own.
    """

    def __init__(self, default: str) -> None:
        rate_of(default)
        self._default = default
        self._limiter = FixedWindowRateLimiter(_Windows())

    def wait(self, key: ApiKey) -> int:
        """Count a request: 0 if it may pass, or else the seconds after which the next may."""
        rate = _rate_of(key.rate or self._default)
        return 0 if self._limiter.hit(rate, key.key_id) else self._seconds(rate, key)

    def charge_rest(self, key: ApiKey, count: int) -> None:
        """
        Count the rest of `count` applications, whose first one `wait` has counted; all of them, or none.

        Raises:
            TooManyAtOnceError: no window holds as many.
            RateUsedUpError: this window does not.
        """
        rate = _rate_of(key.rate or self._default)
        if count > rate.amount:
            raise TooManyAtOnceError(rate)
        if count == 1:
            return
        if not self._limiter.test(rate, key.key_id, cost=count - 1):
            raise RateUsedUpError(self._seconds(rate, key))
        self._limiter.hit(rate, key.key_id, cost=count - 1)

    def _seconds(self, rate: RateLimitItem, key: ApiKey) -> int:
        resets_at = self._limiter.get_window_stats(rate, key.key_id).reset_time
        return max(1, math.ceil(resets_at - time.monotonic()))


class _Windows(Storage):
    """
    Counts in memory; the library's own storage starts a thread every ten milliseconds to forget old ones.

    Windows end by `time.monotonic`: a clock that is set back would keep one open until it has caught up.
    """

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[float, int]] = {}  # its end, in seconds, and the count so far

    @property
    def base_exceptions(self) -> type[Exception]:
        return OSError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = time.monotonic()
        ends, count = self._windows.get(key, (0.0, 0))
        if ends <= now:
            ends, count = now + expiry, 0
        self._windows[key] = ends, count + amount
        return count + amount

    def get(self, key: str) -> int:
        ends, count = self._windows.get(key, (0.0, 0))
        return count if ends > time.monotonic() else 0

    def get_expiry(self, key: str) -> float:
        return self._windows.get(key, (time.monotonic(), 0))[0]

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)
