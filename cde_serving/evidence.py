"""Evidence packs: everything that one model was judged by, in a signed folder that anybody can verify offline.

A pack is a folder named by the digest of its manifest: `manifest.json`, `signature.json` over it, and the files that
the manifest lists. Judged twice, a model has two packs: what is approved and promoted is one judgement, not a model.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from cde_domain.digests import folder_digests, json_digest, write_json
from cde_serving.signing import Record, SignatureError, SigningKey, TrustedKeys, read_signed

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
CHECKS = "checks.json"
FORMAT = 1

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class EvidenceError(ValueError):
    """A pack that is not what was signed."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Materialisation(_Record):
    """One materialisation in Dagster's event log, and the digest of the file it wrote."""

    storage_id: int
    run: str
    sha256: Sha256 | None


class CheckResult(_Record):
    """What a check said about one materialisation of its asset."""

    asset: str
    check: str
    blocking: bool
    passed: bool
    severity: Literal["WARN", "ERROR"]
    description: str | None
    numbers: dict[str, bool | int | float | str]
    storage_id: int
    sha256: Sha256 | None
    run: str


class PackedFile(_Record):
    """A file of the pack, and which asset made it in which run."""

    path: str
    sha256: Sha256
    asset: str
    run: str


class Manifest(_Record):
    """
    What a pack is about.

    `portfolio_code` is the digest of the portfolio's code and policy that the reports were made with, `made_from` every
    materialisation that they were made from, `data` the digests of the loan book and the sets for training and
    hold-out, `commit` the source code ("-dirty" if it was changed since).
    """

    format: Literal[1]
    portfolio: str
    model_digest: Sha256
    portfolio_code: Sha256
    created_at: AwareDatetime
    run: str
    commit: str | None
    data: dict[str, Sha256]
    made_from: dict[str, Materialisation]
    files: tuple[PackedFile, ...]


class _Signature(_Record):
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


@dataclass(frozen=True)
class Pack:
    """A verified pack."""

    digest: str
    folder: Path
    manifest: Manifest
    checks: tuple[CheckResult, ...]

    def report(self, name: str) -> Any:
        """The content of a JSON file."""
        return json.loads((self.folder / name).read_bytes())


_CHECKS = TypeAdapter(tuple[CheckResult, ...])


@dataclass(frozen=True)
class Enclosure:
    """A file to be packed."""

    content: bytes
    asset: str
    run: str


def write_pack(
    packs: Path,
    enclosures: Mapping[str, Enclosure],
    checks: tuple[CheckResult, ...],
    *,
    portfolio: str,
    model_digest: str,
    portfolio_code: str,
    created_at: datetime,
    run: str,
    commit: str | None,
    data: Mapping[str, str],
    made_from: Mapping[str, Materialisation],
    key: SigningKey,
) -> Path:
    """Write a signed pack into `packs/<digest>` and return that folder; it appears whole or not at all."""
    packs.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=packs))
    try:
        for name, enclosure in enclosures.items():
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(enclosure.content)
        write_json(staging / CHECKS, _CHECKS.dump_python(checks, mode="json"))
        makers = {name: (enclosure.asset, enclosure.run) for name, enclosure in enclosures.items()}
        makers[CHECKS] = ("evidence_pack", run)
        manifest = Manifest(
            format=FORMAT,
            portfolio=portfolio,
            model_digest=model_digest,
            portfolio_code=portfolio_code,
            created_at=created_at,
            run=run,
            commit=commit,
            data=dict(data),
            made_from=dict(made_from),
            files=tuple(
                PackedFile(path=name, sha256=sha256, asset=makers[name][0], run=makers[name][1])
                for name, sha256 in folder_digests(staging).items()
            ),
        ).model_dump(mode="json")
        write_json(staging / MANIFEST, manifest)
        write_json(staging / SIGNATURE, {"key": key.public.id, "signature": key.sign("evidence", manifest)})
        staging.chmod(0o755)
        target = packs / json_digest(manifest)
        if not target.exists():
            staging.rename(target)
        return target
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def verify_pack(folder: Path, trusted: TrustedKeys) -> Pack:
    """
    Verify the signature of a pack and every byte of every file of it, manifest and signature included.

    Raises:
        EvidenceError: naming each file that was changed, added or removed, or what is wrong with manifest or signature.
    """
    manifest = _read_record(folder, MANIFEST, Manifest, otherwise="is of another format than this version reads")
    signed = _read_record(folder, SIGNATURE, _Signature, otherwise="holds no signature")
    value = manifest.model_dump(mode="json", exclude_unset=True)
    try:
        trusted.verify("evidence", value, key=signed.key, signature=signed.signature)
    except SignatureError as error:
        raise EvidenceError(f"{MANIFEST} {error}") from error
    if problems := _differences(folder, manifest):
        raise EvidenceError("; ".join(problems))
    try:
        checks = _CHECKS.validate_json((folder / CHECKS).read_bytes())
    except ValidationError as error:
        raise EvidenceError(f"{CHECKS} is of another format than this version reads") from error
    return Pack(json_digest(value), folder, manifest, checks)


def _read_record(folder: Path, name: str, record: type[Record], *, otherwise: str) -> Record:
    try:
        return read_signed((folder / name).read_bytes(), record)
    except FileNotFoundError as error:
        raise EvidenceError(f"{name} is missing") from error
    except SignatureError as error:
        raise EvidenceError(f"{name} {error}") from error
    except ValidationError as error:
        raise EvidenceError(f"{name} {otherwise}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise EvidenceError(f"{name} is truncated or damaged: {error}") from error


def _differences(folder: Path, manifest: Manifest) -> list[str]:
    expected = {file.path: file.sha256 for file in manifest.files}
    present = folder_digests(folder)
    linked = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()}
    problems = [f"{name} is a link" for name in sorted(linked)]
    for name in sorted((present.keys() | expected.keys()) - linked - {MANIFEST, SIGNATURE}):
        if name not in present:
            problems.append(f"{name} is missing")
        elif name not in expected:
            problems.append(f"{name} was added")
        elif present[name] != expected[name]:
            problems.append(f"{name} was changed")
    return problems
