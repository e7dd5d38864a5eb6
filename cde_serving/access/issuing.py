"""Creating and revoking API keys: each in one transaction with its record in the decision log's chain."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from cde_domain.clock import Clock, utc_now
from cde_serving.access.keys import ApiKey, ApiKeyError, new_api_key, read_keys
from cde_serving.records.names import iso
from cde_serving.records.record import Event, Kind

if TYPE_CHECKING:
    from cde_serving.decision_log import DecisionLog


class KeyIssuer:
    """Creates and revokes keys in the name of `by`."""

    def __init__(self, log: "DecisionLog", portfolio: str, *, by: str, clock: Clock = utc_now) -> None:
        self._log = log
        self._portfolio = portfolio
        self._by = by
        self._clock = clock

    async def create(
        self,
        *,
        tenant: str,
        scopes: Iterable[str],
        rate: str | None = None,
        name: str | None = None,
        lifetime: timedelta | None = None,
    ) -> tuple[ApiKey, str]:
        """
        Create a key; return it and the text that its holder sends.

        Raises:
            ApiKeyError: the tenant, a scope or the rate is none.
            LogUnavailableError: it could not be recorded, so there is no such key.
        """
        now = self._clock()
        key, token = new_api_key(
            self._log.master,
            tenant=tenant,
            scopes=scopes,
            rate=rate,
            name=name,
            by=self._by,
            at=iso(now),
            expires_at=iso(now + lifetime) if lifetime else None,
        )
        await self._note("key_created", key, {**asdict(key), "scopes": key.granted})
        return key, token

    async def revoke(self, key_id: str) -> ApiKey:
        """
        Revoke a key; return it as it was.

        Raises:
            ApiKeyError: there is no such key, or it was revoked before.
            LogUnavailableError: it could not be recorded, so the key still counts.
        """
        with self._log.read_engine.connect() as connection:
            key = next((key for key in read_keys(connection) if key.key_id == key_id), None)
        if key is None:
            raise ApiKeyError("there is no such key; `cde keys list` shows all")
        if key.revoked_at:
            raise ApiKeyError(f"it was revoked at {key.revoked_at}")
        await self._note("key_revoked", key)
        return key

    async def _note(self, kind: Kind, key: ApiKey, row: dict[str, str | None] | None = None) -> None:
        await self._log.note(
            Event.of(
                kind,
                self._clock(),
                portfolio=self._portfolio,
                customer=key.key_id,
                by=self._by,
                tenant=key.tenant,
                row=row,
            )
        )
