"""SHA-256 digests of files, folders and JSON values."""

import hashlib
import json
from pathlib import Path
from typing import Any

import rfc8785


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (RFC 8785)."""
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, by its relative POSIX path, in order of path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def json_bytes(value: Any) -> bytes:
    """
    A JSON value for people and programs: sorted and indented.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value as `json_bytes` gives it."""
    path.write_bytes(json_bytes(value))
