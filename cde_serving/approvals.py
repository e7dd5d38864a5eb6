"""Approvals: a named person's signature under the evidence for one model, valid for a while."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from cde_domain.digests import write_json
from cde_serving.evidence import Pack
from cde_serving.signing import SignatureError, SigningKey, TrustedKeys, read_signed


class ApprovalError(ValueError):
    """An approval that does not count."""


class Approval(BaseModel):
    """Who approved which evidence until when; `signature` is over all other fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    portfolio: str
    evidence: str
    model_digest: str
    name: str
    approved_at: AwareDatetime
    valid_until: AwareDatetime
    key: str
    signature: str

    @classmethod
    def of(cls, pack: Pack, *, name: str, key: SigningKey, at: datetime, days: int) -> Self:
        """Approve a pack."""
        value: dict[str, Any] = {
            "portfolio": pack.manifest.portfolio,
            "evidence": pack.digest,
            "model_digest": pack.manifest.model_digest,
            "name": name,
            "approved_at": at.isoformat(),
            "valid_until": (at + timedelta(days=days)).isoformat(),
            "key": key.public.id,
        }
        return cls(**value, signature=key.sign("approval", _stated(cls(**value, signature=""))))

    def verify(self, pack: Pack, *, approvers: TrustedKeys, platform: TrustedKeys, now: datetime) -> None:
        """
        Verify that this approves the pack, now.

        Raises:
            ApprovalError: it approves something else, is not signed by an approver's own key, or has expired.
        """
        asked = (pack.manifest.portfolio, pack.digest, pack.manifest.model_digest)
        if (self.portfolio, self.evidence, self.model_digest) != asked:
            raise ApprovalError(f"it approves other evidence ({self.evidence[:12]})")
        if self.key in platform.keys:
            raise ApprovalError("it is signed with the platform's own key, and whoever trains cannot approve")
        try:
            approvers.verify("approval", _stated(self), key=self.key, signature=self.signature)
        except SignatureError as error:
            raise ApprovalError(f"it {error}") from error
        if approvers.names[self.key] != self.name:
            raise ApprovalError(f"it is in the name of {self.name}, but the key is {approvers.names[self.key]}'s")
        if now < self.approved_at:
            raise ApprovalError(f"it is dated {self.approved_at:%Y-%m-%d}, in the future")
        if now >= self.valid_until:
            raise ApprovalError(f"it expired on {self.valid_until:%Y-%m-%d}")


def _stated(approval: Approval) -> dict[str, Any]:
    return approval.model_dump(mode="json", exclude={"signature"})


def write_approval(folder: Path, approval: Approval) -> Path:
    """File an approval under the evidence it approves, in place of an earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{approval.evidence}.json"
    unfinished = path.with_name(f".{path.name}.unfinished")
    write_json(unfinished, approval.model_dump(mode="json"))
    return unfinished.replace(path)


def read_approval(folder: Path, pack: Pack) -> Approval:
    """
    The approval filed under a pack, not yet verified.

    Raises:
        ApprovalError: there is none, or it cannot be read.
    """
    try:
        return read_signed((folder / f"{pack.digest}.json").read_bytes(), Approval)
    except FileNotFoundError as error:
        raise ApprovalError("nobody approved this evidence yet") from error
    except SignatureError as error:
        raise ApprovalError(f"its file {error}") from error
    except ValidationError as error:
        raise ApprovalError("its file is no approval") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ApprovalError(f"its file is damaged: {error}") from error
