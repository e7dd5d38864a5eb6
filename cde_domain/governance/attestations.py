"""Attestations: what no program can decide, and a named person has put their name to."""

import datetime
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

FILE = "attestations.yaml"  # beside the portfolio's policy


class AttestationError(ValueError):
    """An attestation that cannot be used."""


class Attestation(BaseModel):
    """
    One person's word for one rule.

    It holds from `date` until `expires`. A signature over the file is checked where the evidence is packed; here it is
    taken as written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str = Field(min_length=1)
    name: str = Field(min_length=3)
    role: str = Field(min_length=2)
    date: datetime.date
    expires: datetime.date
    statement: str = Field(min_length=10)

    @model_validator(mode="after")
    def _lasts(self) -> "Attestation":
        if self.expires <= self.date:
            raise ValueError("it expires before it begins")
        return self

    def holds_on(self, day: datetime.date) -> bool:
        """Whether the attestation holds on a day."""
        return self.date <= day < self.expires


class _Attestations(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    attestations: tuple[Attestation, ...]


def read_attestations(path: Path) -> tuple[Attestation, ...]:
    """
    Read a portfolio's attestations, from YAML or JSON; none where there is no file.

    Raises:
        AttestationError: the file is no list of attestations; the message names file and field.
    """
    if not path.is_file():
        return ()
    try:
        return _Attestations.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).attestations
    except (yaml.YAMLError, ValueError) as error:
        raise AttestationError(f"{path.name}: {error}") from error
