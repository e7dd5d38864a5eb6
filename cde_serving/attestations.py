"""Signed attestations: files in which a named person answers, with their own key, for what no program can decide."""

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from cde_domain.digests import write_json
from cde_domain.governance.attestations import Attestation, AttestationError
from cde_serving.signing import SignatureError, SigningKey, TrustedKeys, read_signed


class SignedAttestation(Attestation):
    """An attestation for one portfolio; `signature` is over all other fields."""

    portfolio: str
    key: str
    signature: str

    @classmethod
    def of(cls, stated: Attestation, *, portfolio: str, key: SigningKey) -> Self:
        """Sign an attestation."""
        value = {**stated.model_dump(), "portfolio": portfolio, "key": key.public.id}
        return cls(**value, signature=key.sign("attestation", _stated(cls(**value, signature=""))))

    def verify(
        self, *, portfolio: str, approvers: TrustedKeys, platform: TrustedKeys | None, today: datetime.date
    ) -> None:
        """
        Verify that this counts for a portfolio, today.

        Raises:
            AttestationError: it is for another one, not signed by an approver's own key, not begun or expired.
        """
        if self.portfolio != portfolio:
            raise AttestationError(f"it is for {self.portfolio}")
        if platform is not None and self.key in platform.keys:
            raise AttestationError("it is signed with the platform's own key, which is no person's")
        try:
            approvers.verify("attestation", _stated(self), key=self.key, signature=self.signature)
        except SignatureError as error:
            raise AttestationError(f"it {error}") from error
        if approvers.names[self.key] != self.name:
            raise AttestationError(f"it is in the name of {self.name}, but the key is {approvers.names[self.key]}'s")
        if today < self.date:
            raise AttestationError(f"it is dated {self.date}, in the future")
        if not self.holds_on(today):
            raise AttestationError(f"it expired on {self.expires}")


def _stated(attestation: SignedAttestation) -> dict[str, Any]:
    return attestation.model_dump(mode="json", exclude={"signature"})


@dataclass(frozen=True)
class RefusedAttestation:
    """A file that does not count, and why."""

    file: str
    why: str


def write_attestation(folder: Path, attestation: SignedAttestation) -> Path:
    """File an attestation under its rule, in place of an earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{attestation.rule}.json"
    unfinished = path.with_name(f".{path.name}.unfinished")
    write_json(unfinished, attestation.model_dump(mode="json"))
    return unfinished.replace(path)


def read_attestations(
    folder: Path,
    attestable: Collection[str],
    *,
    portfolio: str,
    approvers: TrustedKeys,
    platform: TrustedKeys | None,
    today: datetime.date,
) -> tuple[list[SignedAttestation], list[RefusedAttestation]]:
    """The attestations on file that count today, and those that do not; `attestable` are the rules open to one."""
    counting, refused = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            attestation = _read(path)
            attestation.verify(portfolio=portfolio, approvers=approvers, platform=platform, today=today)
            if attestation.rule not in attestable:
                raise AttestationError(f"{attestation.rule} is no rule that a person may attest")
        except AttestationError as error:
            refused.append(RefusedAttestation(path.name, str(error)))
        else:
            counting.append(attestation)
    return counting, refused


def _read(path: Path) -> SignedAttestation:
    try:
        return read_signed(path.read_bytes(), SignedAttestation)
    except SignatureError as error:
        raise AttestationError(f"its file {error}") from error
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) or problem["msg"] for problem in error.errors())
        raise AttestationError(f"its file is no attestation: {fields}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise AttestationError(f"its file is damaged: {error}") from error
