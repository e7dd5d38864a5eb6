"""Facts measured on the running service, on the way to the rules of operation.

Whoever measures (replay, monitoring, a drill) appends one signed entry a report to `operation.jsonl`, under the name of
the rule's artefact in the rulebook. Of each metric the latest measurement counts. A log that is forged, damaged or
shortened is refused as a whole: a failure once measured must not disappear.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, StrictBool, StringConstraints

from cde_domain.digests import json_bytes
from cde_domain.governance.facts import Fact, FactError
from cde_domain.governance.rulebook import Phase, Rulebook
from cde_domain.governance.verdicts import require_kind
from cde_serving.ledger import PromotionLedger
from cde_serving.signed_log import SignedEntry, SignedLog, SignedLogError
from cde_serving.signing import SignatureError, SigningKey, read_signed

LOG = "operation.jsonl"
HEAD = "operation.head.json"
MAX_AGE = timedelta(days=92)  # a quarter: what nobody measured for longer says nothing about the service of today
_ARTEFACT = re.compile(r"[a-z][a-z_]*\.json")


class OperationFactsError(SignedLogError):
    """Facts of operation that cannot be believed; the message names the file."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MeasuredFact(_Record):
    """One measured value, as `Fact`."""

    metric: str
    value: StrictBool | float | str | None = None
    interval: tuple[float, float] | None = None
    subject: str = ""
    sufficient: bool = True


class OperationFacts(SignedEntry):
    """What was measured, when, while which bundle answered."""

    artefact: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]*\.json$")]
    bundle: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    measured_at: AwareDatetime
    facts: tuple[MeasuredFact, ...]

    def as_facts(self, now: datetime | None = None) -> list[Fact]:
        """
        The facts for the rulebook; of those older than `MAX_AGE` at `now`, only failures still count.

        Raises:
            FactError: a fact cannot be.
        """
        old = now is not None and now - self.measured_at > MAX_AGE
        outdated = f"measured more than {MAX_AGE.days} days ago" if old else ""
        return [
            Fact(
                fact.metric, self.artefact, fact.value, fact.interval, fact.subject, fact.sufficient, outdated=outdated
            )
            for fact in self.facts
        ]


class Mark(_Record):
    """How far the log reached at one moment: its number of entries, and the digest of the last ("" without any)."""

    entries: int
    head: str


class _SignedMark(Mark):
    portfolio: str
    key: str
    signature: str


@dataclass(frozen=True)
class Measured:
    """Of each metric the latest measurement, in the entry that it is from, and how far the log reached."""

    reports: tuple[OperationFacts, ...]
    mark: Mark

    def facts(self, now: datetime) -> list[Fact]:
        """The facts for the rulebook."""
        return [fact for report in self.reports for fact in report.as_facts(now)]


class OperationLog:
    """
    The log of one portfolio, `operation.jsonl`, and beside it the signed `operation.head.json`.

    The head names the last entry, so that a log that was removed, renamed or cut is noticed. It is written after the
    entry and may lag behind it, never lead. Whoever restores both files as they were at an earlier moment is noticed by
    the marks that compliance reports, evidence and ledger keep.
    """

    def __init__(self, folder: Path, public_key: Path, ledger: PromotionLedger, *, portfolio: str | None) -> None:
        self.path = folder / LOG
        self.head = folder / HEAD
        self._ledger = ledger
        self._log = SignedLog(
            self.path,
            public_key,
            "operation facts",
            OperationFacts,
            portfolio=portfolio,
            error=OperationFactsError,
            follows=_not_before,
        )

    def append(self, stated: dict[str, Any], key: SigningKey) -> OperationFacts:
        """
        Append an entry; return when that is durable.

        Raises:
            OperationFactsError: the log is damaged, or the entry is about a bundle that was never promoted.
            LedgerError: the ledger is damaged.
        """
        _promoted(stated["bundle"], self._bundles())
        with self._log.locked():
            chain = self._verified()
            entry, digest = self._log.append(chain, stated, key)
            value = {
                "entries": entry.sequence,
                "head": digest,
                "portfolio": entry.portfolio,
                "key": key.public.id,
            }
            signed = value | {"signature": key.sign("operation head", value)}
            unfinished = self.head.with_name(f".{HEAD}.unfinished")
            unfinished.write_bytes(json_bytes(signed))
            unfinished.replace(self.head)
        return entry

    def read(self, rulebook: Rulebook, *, now: datetime, marks: Iterable[Mark] = ()) -> Measured:
        """
        What was measured; `marks` are how far the log reached whenever somebody noted it.

        Raises:
            OperationFactsError: the log is damaged, not signed by the platform, of another portfolio or shorter than
                head or marks say; or an entry is dated in the future, about a bundle that was never promoted, or holds
                what no rule of operation asks it for.
            LedgerError: the ledger is damaged.
        """
        chain = self._verified()
        for mark in marks:
            self._require(chain, mark)
        bundles = self._bundles() if chain else set()
        seen: set[tuple[str, str]] = set()
        latest = []
        for entry, _ in reversed(chain):
            metrics = {(entry.artefact, fact.metric) for fact in entry.facts} - seen
            if not metrics:
                continue
            seen |= metrics
            kept = tuple(fact for fact in entry.facts if (entry.artefact, fact.metric) in metrics)
            counting = entry.model_copy(update={"facts": kept})
            try:
                if entry.measured_at > now:
                    raise OperationFactsError("is dated in the future")
                _promoted(entry.bundle, bundles)
                _require_asked(counting.artefact, counting.as_facts(), rulebook)
            except (OperationFactsError, FactError) as error:
                raise OperationFactsError(f"{LOG} line {entry.sequence} {error}") from error
            latest.append(counting)
        return Measured(tuple(reversed(latest)), _mark(chain))

    def _bundles(self) -> set[str]:
        return {entry.bundle for entry in self._ledger.entries()}

    def _verified(self) -> list[tuple[OperationFacts, str]]:
        chain = self._log.verified()
        if (head := self._head()) is not None:
            self._require(chain, head)
        return chain

    def _head(self) -> Mark | None:
        """The signed head; None before the first entry, or where a crash came between entry and head."""
        try:
            signed = read_signed(self.head.read_bytes(), _SignedMark)
            value = signed.model_dump(mode="json", exclude={"signature"})
            self._log.trusted().verify("operation head", value, key=signed.key, signature=signed.signature)
        except FileNotFoundError:
            return None
        except OperationFactsError:  # no public key
            raise
        except SignatureError as error:
            raise OperationFactsError(f"{HEAD} {error}") from error
        except (OSError, RecursionError, ValueError) as error:
            raise OperationFactsError(f"{HEAD} is damaged: {error}") from error
        if self._log.portfolio not in (None, signed.portfolio):
            raise OperationFactsError(f"{HEAD} is about {signed.portfolio}")
        return signed

    @staticmethod
    def _require(chain: list[tuple[OperationFacts, str]], mark: Mark) -> None:
        if mark.entries > len(chain):
            raise OperationFactsError(f"{LOG} has {len(chain)} entries, but there was an entry {mark.entries}")
        if mark.entries > 0 and chain[mark.entries - 1][1] != mark.head:
            raise OperationFactsError(f"{LOG} line {mark.entries} is another than was there before")


def write_operation_facts(
    log: OperationLog,
    artefact: str,
    facts: Iterable[Fact],
    *,
    portfolio: str,
    bundle: str,
    measured_at: datetime,
    key: SigningKey,
    rulebook: Rulebook | None = None,
) -> OperationFacts:
    """
    Sign facts with the platform's key and append them to the log; without a `rulebook` it is read from its file.

    Raises:
        OperationFactsError: no rule of operation asks this report for one of them, one is of another kind than its rule
            asks for, the bundle was never promoted, or the log is damaged.
        LedgerError: the ledger is damaged.
    """
    measured = tuple(facts)
    _require_asked(artefact, measured, rulebook or Rulebook.read())
    stated = {
        "portfolio": portfolio,
        "artefact": artefact,
        "bundle": bundle,
        "measured_at": measured_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "facts": [
            MeasuredFact(
                metric=fact.metric,
                value=fact.value,
                interval=fact.interval,
                subject=fact.subject,
                sufficient=fact.sufficient,
            ).model_dump(mode="json")
            for fact in measured
        ],
    }
    return log.append(stated, key)


def _not_before(entry: OperationFacts, chain: list[tuple[OperationFacts, str]]) -> None:
    """Refuse a measurement older than one of the same report that stands before it: it would take its place."""
    before = [other.measured_at for other, _ in chain if other.artefact == entry.artefact]
    if before and entry.measured_at < before[-1]:
        raise SignedLogError(f"is an older measurement of {entry.artefact} than one before it")


def _promoted(bundle: str, bundles: Collection[str]) -> None:
    if bundle not in bundles:
        raise OperationFactsError(f"is about bundle {bundle[:12]}, which was never promoted")


def _require_asked(artefact: str, facts: Iterable[Fact], rulebook: Rulebook) -> None:
    """Refuse facts that no rule of operation asks of a report, or asks in another kind."""
    if not _ARTEFACT.fullmatch(artefact):
        raise OperationFactsError(f"{artefact!r} is no name of a report")
    asked = {
        check.metric: check.threshold
        for rule in rulebook.rules
        if rule.phase is Phase.OPERATION and rule.artefact == artefact
        for check in rule.checks
    }
    facts = tuple(facts)
    if strange := sorted({fact.metric for fact in facts} - asked.keys()):
        raise OperationFactsError(f"holds {', '.join(strange)}, for which no rule of operation asks {artefact}")
    for fact in facts:
        try:
            require_kind(fact, asked[fact.metric])
        except FactError as error:
            raise OperationFactsError(f"holds a fact of the wrong kind: {error}") from error


def _mark(chain: list[tuple[OperationFacts, str]]) -> Mark:
    return Mark(entries=len(chain), head=chain[-1][1] if chain else "")
