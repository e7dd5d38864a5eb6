"""Attestations: what no program can decide, and a named person has put their name to."""

import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_DAYS = 366


class AttestationError(ValueError):
    """An attestation that cannot be used."""


class Attestation(BaseModel):
    """One person's word for one rule. It holds from `date` until `expires`, at most a year."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str = Field(min_length=1)
    name: str = Field(min_length=3)
    role: str = ""
    date: datetime.date
    expires: datetime.date
    statement: str = Field(min_length=10)

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.expires <= self.date:
            raise ValueError("it expires before it begins")
        if self.expires - self.date > datetime.timedelta(days=MAX_DAYS):
            raise ValueError(f"it lasts longer than {MAX_DAYS} days")
        return self

    def holds_on(self, day: datetime.date) -> bool:
        """Whether the attestation holds on a day."""
        return self.date <= day < self.expires
