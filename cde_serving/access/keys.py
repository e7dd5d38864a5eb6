"""API keys: who may ask the service for what. The database keeps a keyed hash, the key itself is shown once."""

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import limits
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from cde_serving.records.schema import api_keys
from cde_serving.records.vault import MasterKey

KeyScope = Literal["score", "read", "review", "admin"]

SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
ID_DIGITS = 12
SECRET_DIGITS = 64  # 256 random bits: a keyed hash is enough, since there is nothing to guess
SHOWN_DIGITS = 4
LONGEST_NAME = 100
LONGEST_RATE = 64

_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TOKEN = re.compile(rf"cde_([0-9a-f]{{{ID_DIGITS}}})_([0-9a-f]{{{SECRET_DIGITS}}})".encode())


class ApiKeyError(ValueError):
    """A key that cannot be created or revoked as asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """
    A key without its secret. Times are ISO 8601 in UTC.

    `digest` is the keyed hash of the secret and of all that the key grants: whoever can write the database can neither
    make a key nor widen one. It is None once the key is revoked; only an old copy of the row brings the key back.
    """

    key_id: str
    tenant: str
    scopes: frozenset[str]
    rate: str | None
    name: str | None
    last_digits: str
    created_at: str
    created_by: str
    expires_at: str | None
    digest: str | None = None
    revoked_at: str | None = None

    @classmethod
    def of(cls, row: Row) -> "ApiKey":
        """The key in a row of the table."""
        columns = {name: value for name, value in row._mapping.items() if name not in ("scopes", "revoked_by")}
        return cls(**columns, scopes=frozenset(row.scopes.split()))

    @property
    def granted(self) -> str:
        """The scopes as text, in one order."""
        return " ".join(scope for scope in SCOPES if scope in self.scopes)

    def digest_of(self, master: MasterKey, secret: bytes) -> str:
        """The keyed hash of a secret as the secret of this key."""
        bound = "\0".join((self.key_id, self.tenant, self.granted, self.rate or "", self.expires_at or ""))
        return master.api_key_digest(bound.encode() + b"\0" + secret)


def new_api_key(
    master: MasterKey,
    *,
    tenant: str,
    scopes: Iterable[str],
    rate: str | None,
    name: str | None,
    by: str,
    at: str,
    expires_at: str | None,
) -> tuple[ApiKey, str]:
    """
    A new key, and the text that its holder sends: the only time it is known.

    Raises:
        ApiKeyError: the tenant, a scope, the rate or the name is none.
    """
    if not _TENANT.fullmatch(tenant):
        raise ApiKeyError(
            "a tenant's name is 1 to 64 lower-case letters, digits, '.', '_' or '-', beginning with a letter or digit"
        )
    granted = frozenset(scopes)
    if not granted or granted - set(SCOPES):
        raise ApiKeyError(f"a key has one or more of the scopes {', '.join(SCOPES)}")
    if rate is not None:
        rate_of(rate)
    if name is not None and not (name.isprintable() and 0 < len(name) <= LONGEST_NAME):
        raise ApiKeyError(f"a key's name is 1 to {LONGEST_NAME} printable characters")
    secret = secrets.token_hex(SECRET_DIGITS // 2)
    key = ApiKey(
        key_id=secrets.token_hex(ID_DIGITS // 2),
        tenant=tenant,
        scopes=granted,
        rate=rate,
        name=name,
        last_digits=secret[-SHOWN_DIGITS:],
        created_at=at,
        created_by=by,
        expires_at=expires_at,
    )
    return replace(key, digest=key.digest_of(master, secret.encode())), f"cde_{key.key_id}_{secret}"


def split_token(token: bytes) -> tuple[str, bytes] | None:
    """Id and secret in the text that a holder sent, if it has the form of a key."""
    found = _TOKEN.fullmatch(token)
    return (found[1].decode(), found[2]) if found else None


def rate_of(text: str) -> limits.RateLimitItem:
    """
    A rate like `100/second` or `5000 per hour`.

    Raises:
        ApiKeyError: it is none.
    """
    try:
        rate = limits.parse(text)
    except ValueError:
        rate = None
    if rate is None or rate.amount < 1 or len(text) > LONGEST_RATE:
        raise ApiKeyError(f"{text!r} is no rate; write it like 100/second or 5000/hour")
    return rate


def read_keys(connection: Connection) -> list[ApiKey]:
    """All keys, also those that no longer count, in the order of their creation."""
    rows = connection.execute(sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id))
    return [ApiKey.of(row) for row in rows]


def live_rows(connection: Connection, at: str) -> Sequence[Row]:
    """The rows of the keys that count at a moment."""
    unexpired = sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > at)
    query = sa.select(api_keys).where(api_keys.c.revoked_at.is_(None), unexpired).order_by(api_keys.c.key_id)
    return connection.execute(query).all()
