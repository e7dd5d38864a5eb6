"""Ed25519 signatures over canonical JSON: who may promote, who approved, and what the service believes.

A key that lies under CDE_HOME stops mistakes, and whoever may write there but not read the key; it stops neither root
nor the account that trains. For that, keep the private key elsewhere (CDE_SIGNING_KEY) and give the service the public
one (CDE_VERIFY_KEY).
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel

from cde_domain.digests import json_bytes

Kind = Literal[
    "ledger entry",
    "evidence",
    "approval",
    "attestation",
    "operation facts",
    "operation head",
    "checkpoint",
    "experiment",
]
KEY_ID_DIGITS = 16
PEM_END = b"-----END PUBLIC KEY-----"
Record = TypeVar("Record", bound=BaseModel)
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


class SignatureError(ValueError):
    """A signature that does not hold, or a key that cannot be used."""


def _signed_bytes(kind: Kind, value: Any) -> bytes:
    """What is signed: the kind is part of it, so that no signature can be used for another kind of statement."""
    return rfc8785.dumps({"kind": kind, "value": value})


def read_signed(content: bytes, record: type[Record], *, form: Callable[[Any], bytes] = json_bytes) -> Record:
    """
    The record in `content`, if these are the very bytes in which `form` writes it.

    A signature covers the value that was parsed. Spaces, a field written twice, or a date in another spelling change no
    value, so only this comparison sees them.

    Raises:
        SignatureError: the bytes differ from those that were written and signed.
        ValidationError: it is another record.
        ValueError: it is not JSON, or holds what canonical JSON cannot.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(content)
    read = record.model_validate(value)
    if not form(read.model_dump(mode="json", exclude_unset=True)) == form(value) == content:
        raise SignatureError("holds other bytes than were signed")
    return read


@dataclass(frozen=True)
class VerifyKey:
    """A public key, known by `id`: the start of its SHA-256."""

    key: Ed25519PublicKey

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """
        A public key from PEM.

        Raises:
            SignatureError: it is no Ed25519 public key.
        """
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SignatureError("holds no public key in PEM") from error
        if not isinstance(key, Ed25519PublicKey):
            raise SignatureError("holds a public key of another kind than Ed25519")
        return cls(key)

    @property
    def id(self) -> str:
        """The name of the key in what it signed."""
        return hashlib.sha256(self.key.public_bytes_raw()).hexdigest()[:KEY_ID_DIGITS]

    def pem(self) -> bytes:
        """The key in PEM."""
        return self.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def verify(self, kind: Kind, value: Any, signature: str) -> None:
        """
        Verify a signature in hexadecimal over a JSON value.

        Raises:
            SignatureError: it is not this key's signature of this value.
        """
        mismatch = f"bears a signature that does not match (key {self.id})"
        if not _SIGNATURE.fullmatch(signature):  # one spelling only: `fromhex` also takes capitals and spaces
            raise SignatureError(mismatch)
        try:
            self.key.verify(bytes.fromhex(signature), _signed_bytes(kind, value))
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(mismatch) from error


@dataclass(frozen=True)
class SigningKey:
    """A private key."""

    key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Self:
        """
        A private key from a PEM file without a password.

        Raises:
            SignatureError: there is no such file, or it holds no Ed25519 private key.
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SignatureError(f"{path} holds no private key that can be read: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SignatureError(f"{path} holds a private key of another kind than Ed25519")
        return cls(key)

    @property
    def public(self) -> VerifyKey:
        """The public key."""
        return VerifyKey(self.key.public_key())

    def pem(self) -> bytes:
        """The key in PEM, without a password."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, kind: Kind, value: Any) -> str:
        """The signature of a JSON value, in hexadecimal."""
        return self.key.sign(_signed_bytes(kind, value)).hex()


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys by id; a signature by any other is refused. `names` says under which name a key is filed."""

    keys: Mapping[str, VerifyKey]
    names: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """
        The keys of a PEM file: one, or after a change of keys the new one and those of older signatures.

        Raises:
            SignatureError: the file is missing or holds something else.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SignatureError(f"the public key {path} cannot be read") from error
        try:
            keys = [VerifyKey.from_pem(part + PEM_END) for part in content.split(PEM_END)[:-1]]
        except SignatureError as error:
            raise SignatureError(f"{path} {error}") from error
        if not keys:
            raise SignatureError(f"{path} holds no public key in PEM")
        return cls({key.id: key for key in keys}, {key.id: path.stem for key in keys})

    @classmethod
    def read_folder(cls, folder: Path) -> Self:
        """
        The keys of all `*.pem` files of a folder, each filed under its file's name without the ending.

        Raises:
            SignatureError: a file holds something else.
        """
        files = [cls.read(path) for path in sorted(folder.glob("*.pem"))]
        return cls(
            {key_id: key for file in files for key_id, key in file.keys.items()},
            {key_id: name for file in files for key_id, name in file.names.items()},
        )

    def verify(self, kind: Kind, value: Any, *, key: str, signature: str) -> None:
        """
        Verify a signature by one of these keys.

        Raises:
            SignatureError: the key is not trusted, or the signature is not its.
        """
        if key not in self.keys:
            raise SignatureError(f"is signed with the key {key[:KEY_ID_DIGITS]}, which is not trusted")
        self.keys[key].verify(kind, value, signature)


def open_signing_key(path: Path, public: Path, *, create: bool) -> SigningKey:
    """
    The platform's private key, with its public key in `public` so that readers can verify.

    With `create` a missing key is generated, readable for its owner only; of processes that do so at once, one wins.

    Raises:
        SignatureError: the key cannot be read, or readers trust another one.
    """
    if create and not path.exists():
        write_once(path, SigningKey.generate().pem(), mode=0o600)
    key = SigningKey.read(path)
    if not public.exists():
        write_once(public, key.public.pem(), mode=0o644)
    if key.public.id not in TrustedKeys.read(public).keys:
        raise SignatureError(f"{path} is not the private key of {public}: nobody would believe its signatures")
    return key


def write_once(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file whole, unless somebody else has written it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        Path(unfinished).unlink()
