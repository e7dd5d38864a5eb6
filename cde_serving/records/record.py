"""One entry of the decision log as its reader and writer see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

import msgspec

from cde_serving.records.names import iso, record_id_at
from cde_serving.records.vault import VaultError

Kind = Literal[
    "decision", "shadow", "protected", "restriction", "erasure", "review", "outcome", "key_created", "key_revoked",
    "stop_auto", "resume_auto",
]  # fmt: skip

DEFAULT_TENANT = "default"


class ErasedError(LookupError):
    """The customer's data was erased, or may no longer be used."""


class UnreadableRecordError(VaultError):
    """A record of a decision, or of what followed it, that was changed or whose key is another."""

    def __init__(self, decision_id: str, problem: Exception) -> None:
        super().__init__(str(problem) if isinstance(problem, VaultError) else "the record was changed")
        self.decision_id = decision_id


class Payload(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """
    What is personal in a decision, and therefore kept encrypted.

    `request` is the application as its model writes it (its order of fields, unset ones left out), `answer` the exact
    bytes that were answered. Every bit of the `features`' doubles is kept. `fetched` names the parts of the request
    that the service asked the bureau for; a shadow decision is `about` the answered one.
    """

    customer_id: str
    request: bytes
    features: Mapping[str, float | str | None]
    score: float | None
    answer: bytes
    fetched: tuple[str, ...] = ()
    about: str | None = None

    @property
    def contributions(self) -> dict[str, float | None]:
        """The contributions (margin space) that the answer gave, every bit of their doubles; None for NaN."""
        return dict(_explained(self.answer).explanation.contributions)


class _Explanation(msgspec.Struct):
    contributions: dict[str, float | None]


class _Explained(msgspec.Struct):
    explanation: _Explanation


_explained = msgspec.json.Decoder(_Explained).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What decided: digests of the bundle, the model in it, the policy in it, and the code that ran."""

    bundle: str
    model: str
    policy: str
    code: str
    policy_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    A decision to be kept, or one that was; a `shadow` is one that nobody was answered.

    Times are ISO 8601 in UTC. `fingerprint` says what an idempotency key was used for; the key itself is not kept, so
    it is None in what the log gives back; so are the `protected` attributes, which are kept in a record of their own.
    `chain`, `sequence` and `recorded_at` are given by the log.
    """

    record_id: str
    applied_at: str
    portfolio: str
    payload: Payload
    decision: str
    decided_by: str
    reason_codes: tuple[str, ...]
    variant: str
    versions: Versions
    kind: Kind = "decision"
    tenant: str = DEFAULT_TENANT
    idempotency_key: str | None = None
    fingerprint: str | None = None
    protected: Mapping[str, str] | None = None
    chain: str | None = None
    sequence: int | None = None
    recorded_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    Something that is done to a customer's data, to an API key or to all decisions, kept in the chain without a payload.

    `customer` is the token, or the id of the API key, whose `row` a creation adds; empty where nobody in particular is
    meant. A restriction keeps the data `keep_days` after the last decision; an erasure shreds what is kept no longer.
    `follows` is the event that a stop or a resumption puts an end to.
    """

    record_id: str
    kind: Kind
    at: str
    portfolio: str
    by: str
    customer: str = ""
    reason: str = ""
    keep_days: int = 0
    tenant: str = DEFAULT_TENANT
    row: Mapping[str, str | None] | None = None
    follows: str | None = None

    @classmethod
    def of(cls, kind: Kind, moment: datetime, **details: Any) -> Self:
        """An event of a moment, with a new id."""
        return cls(record_id=record_id_at(moment), kind=kind, at=iso(moment), **details)
