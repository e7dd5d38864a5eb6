"""The keys that count at this moment, in a running service."""

import asyncio
import hmac
import time
from collections.abc import Mapping, Sequence

from sqlalchemy.engine import Engine, Row

from cde_domain.clock import Clock, utc_now
from cde_serving.access.keys import ApiKey, live_rows, split_token
from cde_serving.records.names import iso
from cde_serving.records.vault import MasterKey
from cde_serving.watched import Watched

POLL_SECONDS = 0.25
OLDEST_SECONDS = 1.0  # a key that was revoked longer ago is never let in
_STEP_SECONDS = 0.05

# An unknown id is compared as a known one is, so that both take as long.
_NOBODY = ApiKey(
    key_id="0" * 12, tenant="", scopes=frozenset(), rate=None, name=None, last_digits="", created_at="", created_by="",
    expires_at=None, digest="0" * 64,
)  # fmt: skip


class KeysUnknownError(RuntimeError):
    """The keys could not be read for too long to tell who is let in."""


class KeyRing:
    """Recognises keys; another process's `cde keys create` and `revoke` take effect within a second."""

    def __init__(
        self, engine: Engine, master: MasterKey, clock: Clock = utc_now, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._engine = engine
        self._master = master
        self._clock = clock
        self._read_last: tuple[Sequence[Row], Mapping[str, ApiKey]] = ([], {})
        self._watched: Watched[Mapping[str, ApiKey]] = Watched("API keys", self._read, poll_seconds)

    @property
    def is_fresh(self) -> bool:
        """Whether every revocation of more than a second ago is known."""
        return self._watched.age < OLDEST_SECONDS

    async def wait_until_fresh(self) -> None:
        """
        Wait, a second at most, for keys that are read late; not for keys that cannot be read.

        Raises:
            KeysUnknownError: they are not known.
        """
        until = time.monotonic() + OLDEST_SECONDS
        while not self.is_fresh:
            if self._watched.problem or time.monotonic() > until:
                raise KeysUnknownError
            await asyncio.sleep(_STEP_SECONDS)

    def recognise(self, token: bytes) -> ApiKey | None:
        """The key whose text this is; None for whatever is no key, or one that no longer counts."""
        parts = split_token(token)
        if parts is None:
            return None
        key_id, secret = parts
        key = self._watched.value.get(key_id, _NOBODY)
        matches = hmac.compare_digest(key.digest_of(self._master, secret), key.digest or "")
        return key if matches and key is not _NOBODY else None

    def close(self) -> None:
        """Stop reading."""
        self._watched.close()

    def _read(self) -> Mapping[str, ApiKey]:
        with self._engine.connect() as connection:
            rows = live_rows(connection, iso(self._clock()))
        if rows != self._read_last[0]:  # seldom: to compare costs a tenth of building the keys
            self._read_last = (rows, {row.key_id: ApiKey.of(row) for row in rows})
        return self._read_last[1]
