"""Signed checkpoints of the chains, in a file outside the database.

Whoever can write the database can cut the end of a chain off or compute all of it anew; neither agrees with what was
signed. A copy of the file kept elsewhere finds even a file that was cut together with the database.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rfc8785
from pydantic import BaseModel, ConfigDict

from cde_domain.digests import sha256_of
from cde_serving.signing import SignatureError, SigningKey, TrustedKeys

LAST_BYTES = 4096  # more than a line has


class Checkpoint(BaseModel):
    """
    The head of one chain at one moment: `sequence` records, the last of which has `hash`.

    A chain begins with a checkpoint of no records and, unless its writer was killed, ends with a `closed` one.
    `previous` is the digest of the line before, `signature` is over all other fields by the key whose id is `key`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    chain: str
    sequence: int
    hash: str
    closed: bool
    at: str
    previous: str
    key: str
    signature: str


class CheckpointFile:
    """Appends checkpoints; several processes may append to one file."""

    def __init__(self, path: Path, key: SigningKey) -> None:
        self.path = path
        self._key = key

    def append(self, chain: str, sequence: int, head: str, at: str, *, closed: bool = False) -> None:
        """
        Sign the head of a chain; return when that is durable.

        Raises:
            OSError: the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # closing the file releases the lock
            end, previous = _last_line(descriptor)
            value: dict[str, Any] = {
                "chain": chain,
                "sequence": sequence,
                "hash": head,
                "closed": closed,
                "at": at,
                "previous": sha256_of(previous) if previous else "",
                "key": self._key.public.id,
            }
            line = rfc8785.dumps({**value, "signature": self._key.sign("checkpoint", value)}) + b"\n"
            os.ftruncate(descriptor, end)  # a line without its end was cut off by a crash or a full disk
            if os.pwrite(descriptor, line, end) != len(line):
                raise OSError("the checkpoint was written in part")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_checkpoints(path: Path, trusted: TrustedKeys) -> tuple[list[Checkpoint], list[str]]:
    """The checkpoints of a file that a trusted key signed, and what is wrong with the file, by line."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return [], []
    checkpoints: list[Checkpoint] = []
    problems: list[str] = []
    before = b""
    for number, line in enumerate(lines, start=1):
        try:
            checkpoint = _read_line(line, trusted)
        except (SignatureError, ValueError, RecursionError) as error:
            problems.append(f"{path.name} line {number} {_told(error)}")
        else:
            checkpoints.append(checkpoint)
            if checkpoint.previous != (sha256_of(before) if before else ""):
                problems.append(f"{path.name} line {number} does not follow from the line before")
        before = line
    return checkpoints, problems


def by_chain(checkpoints: Sequence[Checkpoint]) -> dict[str, list[Checkpoint]]:
    """The checkpoints of each chain, in the order of their sequence."""
    chains: dict[str, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        chains.setdefault(checkpoint.chain, []).append(checkpoint)
    return {chain: sorted(known, key=lambda one: one.sequence) for chain, known in chains.items()}


def _read_line(line: bytes, trusted: TrustedKeys) -> Checkpoint:
    value = json.loads(line)
    checkpoint = Checkpoint.model_validate(value)
    signed = {name: field for name, field in value.items() if name != "signature"}
    trusted.verify("checkpoint", signed, key=checkpoint.key, signature=checkpoint.signature)
    return checkpoint


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, SignatureError) else "is no checkpoint"


def _last_line(descriptor: int) -> tuple[int, bytes]:
    """Where the last whole line of a file ends, and that line without its end."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - LAST_BYTES)
    content = os.pread(descriptor, size - start, start)
    end = content.rfind(b"\n") + 1
    return start + end, content[:end].rstrip(b"\n").rsplit(b"\n", 1)[-1]
