"""Facts measured on the running service, on the way to the rules of operation.

Whoever measures (replay, monitoring, a drill) writes one signed file a report into `operation/`, named as the rulebook
names the rule's artefact. A file that is forged, damaged or about something else is refused, never skipped: a failure
once measured must not disappear.
"""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, StrictBool, StringConstraints, ValidationError

from cde_domain.digests import write_json
from cde_domain.governance.facts import Fact, FactError
from cde_domain.governance.rulebook import Phase, Rulebook
from cde_serving.signing import SignatureError, SigningKey, TrustedKeys

FORMAT = 1
_ARTEFACT = re.compile(r"^[a-z][a-z_]*\.json$")


class OperationFactsError(ValueError):
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


class OperationFacts(_Record):
    """What was measured, when, while which bundle answered; `signature` is over all other fields."""

    format: Literal[1]
    portfolio: str
    artefact: str
    bundle: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    measured_at: AwareDatetime
    facts: tuple[MeasuredFact, ...]
    key: str
    signature: str

    def as_facts(self) -> list[Fact]:
        """
        The facts for the rulebook.

        Raises:
            FactError: a fact cannot be.
        """
        return [
            Fact(fact.metric, self.artefact, fact.value, fact.interval, fact.subject, fact.sufficient)
            for fact in self.facts
        ]


def write_operation_facts(
    folder: Path,
    artefact: str,
    facts: Iterable[Fact],
    *,
    portfolio: str,
    bundle: str,
    measured_at: datetime,
    key: SigningKey,
) -> Path:
    """
    Sign facts with the platform's key and file them, in place of an earlier measurement of the same report.

    Raises:
        OperationFactsError: no rule of operation asks this report for one of them.
    """
    stated: dict[str, Any] = {
        "format": FORMAT,
        "portfolio": portfolio,
        "artefact": artefact,
        "bundle": bundle,
        "measured_at": measured_at,
        "facts": [
            MeasuredFact(
                metric=fact.metric,
                value=fact.value,
                interval=fact.interval,
                subject=fact.subject,
                sufficient=fact.sufficient,
            )
            for fact in facts
        ],
        "key": key.public.id,
    }
    unsigned = OperationFacts(**stated, signature="")
    _asked_for(unsigned, Rulebook.read())
    signed = unsigned.model_copy(update={"signature": key.sign("operation facts", _stated(unsigned))})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / artefact
    unfinished = path.with_name(f".{path.name}.unfinished")
    write_json(unfinished, signed.model_dump(mode="json"))
    return unfinished.replace(path)


def read_operation_facts(
    folder: Path, rulebook: Rulebook, *, portfolio: str, trusted: TrustedKeys, now: datetime
) -> list[OperationFacts]:
    """
    All facts of operation of a portfolio.

    Raises:
        OperationFactsError: a file is damaged, not signed by the platform, of another portfolio, dated in the future,
            or holds what no rule of operation asks it for.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            measured = OperationFacts.model_validate(json.loads(path.read_bytes()))
            trusted.verify("operation facts", _stated(measured), key=measured.key, signature=measured.signature)
            if measured.portfolio != portfolio:
                raise OperationFactsError(f"is about {measured.portfolio}")
            if measured.artefact != path.name:
                raise OperationFactsError(f"is a copy of {measured.artefact}")
            if measured.measured_at > now:
                raise OperationFactsError("is dated in the future")
            _asked_for(measured, rulebook)
        except (OperationFactsError, SignatureError) as error:
            raise OperationFactsError(f"operation/{path.name} {error}") from error
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
            raise OperationFactsError(f"operation/{path.name} is no report of operation: {fields}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise OperationFactsError(f"operation/{path.name} is damaged: {error}") from error
        found.append(measured)
    return found


def _asked_for(measured: OperationFacts, rulebook: Rulebook) -> None:
    if not _ARTEFACT.match(measured.artefact):
        raise OperationFactsError(f"{measured.artefact!r} is no name of a report")
    asked = {
        check.metric
        for rule in rulebook.rules
        if rule.phase is Phase.OPERATION and rule.artefact == measured.artefact
        for check in rule.checks
    }
    if strange := sorted({fact.metric for fact in measured.facts} - asked):
        raise OperationFactsError(
            f"holds {', '.join(strange)}, for which no rule of operation asks {measured.artefact}"
        )
    try:
        measured.as_facts()
    except FactError as error:
        raise OperationFactsError(str(error)) from error


def _stated(measured: OperationFacts) -> dict[str, Any]:
    return measured.model_dump(mode="json", exclude={"signature"})
