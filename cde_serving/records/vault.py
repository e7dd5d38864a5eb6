"""Keys: one for each customer, wrapped by the master key, and tokens that name a person to nobody else.

A master key that lies under CDE_HOME protects copies of the database; it does not protect from whoever reads CDE_HOME.
"""

import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cde_serving.records.randomness import random_bytes
from cde_serving.signing import write_once

KEY_BYTES = 32
NONCE_BYTES = 12  # random: a customer's key encrypts far fewer than the 2^32 messages that are safe (NIST SP 800-38D)


class VaultError(ValueError):
    """A key that cannot be used, or a ciphertext that it did not make."""


@dataclass(frozen=True)
class MasterKey:
    """
    The key that wraps the customers' keys and from which the keys of tokens are derived.

    Whoever holds it can read every payload whose customer's key is not shredded, and match a customer id to its token.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise VaultError(f"a master key has {KEY_BYTES} bytes, not {len(self.secret)}")
        object.__setattr__(self, "_tokens", hmac.new(self._derive(b"tokens"), digestmod="sha256"))
        object.__setattr__(self, "_api_keys", hmac.new(self._derive(b"api keys"), digestmod="sha256"))
        object.__setattr__(self, "_wrap", AESGCM(self._derive(b"wrap")))

    _tokens: hmac.HMAC = field(init=False, repr=False, compare=False)
    _api_keys: hmac.HMAC = field(init=False, repr=False, compare=False)
    _wrap: AESGCM = field(init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Self:
        """
        The key in a file, as 64 hexadecimal digits; with `create` a missing one is generated.

        Raises:
            VaultError: there is none, or the file holds something else.
        """
        if create and not path.exists():
            write_once(path, os.urandom(KEY_BYTES).hex().encode() + b"\n", mode=0o600)
        try:
            return cls(bytes.fromhex(path.read_text(encoding="ascii")))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it must hold 64 hexadecimal digits"
            raise VaultError(f"the master key {path} cannot be used: {reason}") from None

    @property
    def id(self) -> str:
        """The name of the key, which gives nothing of it away."""
        return self._derive(b"id").hex()[:16]

    def token(self, kind: Literal["customer", "idempotency key", "request"], tenant: str, value: str | bytes) -> str:
        """A name for a value that only this key can make (HMAC-SHA256): 64 hexadecimal digits."""
        content = value.encode() if isinstance(value, str) else value
        keyed = self._tokens.copy()  # at half the price of beginning with the key
        keyed.update(f"{kind}\0{tenant}\0".encode() + content)
        return keyed.hexdigest()

    def api_key_digest(self, content: bytes) -> str:
        """What an API key is known by (HMAC-SHA256 under a key of its own): 64 hexadecimal digits."""
        keyed = self._api_keys.copy()
        keyed.update(content)
        return keyed.hexdigest()

    def wrap(self, key: bytes, customer: str, number: int) -> bytes:
        """A customer's key, encrypted and bound to its place."""
        nonce = random_bytes(NONCE_BYTES)
        return nonce + self._wrap.encrypt(nonce, key, f"{customer}/{number}".encode())

    def unwrap(self, wrapped: bytes, customer: str, number: int) -> bytes:
        """
        A customer's key.

        Raises:
            VaultError: it was wrapped by another master key or for another place, or was changed.
        """
        return _decrypt(self._wrap, wrapped, f"{customer}/{number}")

    def _derive(self, use: bytes) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"credit decision engine: " + use).derive(self.secret)


@dataclass(frozen=True, slots=True)
class CustomerKey:
    """One of a customer's keys; those before it were shredded or restricted."""

    number: int
    secret: bytes = field(repr=False)


def new_key() -> bytes:
    """A key for a customer."""
    return random_bytes(KEY_BYTES)


def seal(key: bytes, content: bytes, record_id: str) -> bytes:
    """A payload under a customer's key (AES-256-GCM), bound to its record: nonce, ciphertext, tag."""
    nonce = random_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, record_id.encode())


def unseal(key: bytes, sealed: bytes, record_id: str) -> bytes:
    """
    The payload.

    Raises:
        VaultError: the key or the record is another one, or the payload was changed.
    """
    return _decrypt(AESGCM(key), sealed, record_id)


def _decrypt(cipher: AESGCM, sealed: bytes, bound_to: str) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode())
    except (InvalidTag, ValueError, TypeError):  # SQLite keeps text in a column of bytes
        raise VaultError("a ciphertext was changed, or belongs to another key or record") from None
