"""How often a key may ask: a fixed window for each key, counted in this process."""

import math
import time
from functools import lru_cache

from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from cde_serving.access.keys import ApiKey, rate_of

_rate_of = lru_cache(maxsize=1024)(rate_of)


class Rates:
    """Counts the requests of each key; `default` is the rate of those that have none of their own."""

    def __init__(self, default: str) -> None:
        rate_of(default)
        self._default = default
        self._limiter = FixedWindowRateLimiter(_Windows())

    def wait(self, key: ApiKey) -> int:
        """Count a request: 0 if it may pass, or else the seconds after which the next may."""
        rate = _rate_of(key.rate or self._default)
        if self._limiter.hit(rate, key.key_id):
            return 0
        resets_at = self._limiter.get_window_stats(rate, key.key_id).reset_time
        return max(1, math.ceil(resets_at - time.time()))


class _Windows(Storage):
    """Counts in memory; the library's own storage starts a thread every ten milliseconds to forget old ones."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[float, int]] = {}  # its end, in seconds since 1970, and the count so far

    @property
    def base_exceptions(self) -> type[Exception]:
        return OSError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = time.time()
        ends, count = self._windows.get(key, (0.0, 0))
        if ends <= now:
            ends, count = now + expiry, 0
        self._windows[key] = ends, count + amount
        return count + amount

    def get(self, key: str) -> int:
        ends, count = self._windows.get(key, (0.0, 0))
        return count if ends > time.time() else 0

    def get_expiry(self, key: str) -> float:
        return self._windows.get(key, (time.time(), 0))[0]

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)
