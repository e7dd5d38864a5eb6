"""The rulebook applied to facts: a status for every rule, with the number it rests on."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from cde_domain.governance.attestations import Attestation, AttestationError
from cde_domain.governance.facts import METRICS, Fact, FactError, Value
from cde_domain.governance.rulebook import (
    Jurisdiction,
    LegalStatus,
    OfPortfolio,
    Phase,
    Rule,
    Rulebook,
    RuleCheck,
    Severity,
    Threshold,
)
from cde_domain.intervals import Interval


class Status(StrEnum):
    """What can be said of a rule; the order is that in which one check's status decides its rule's."""

    FAIL = "fail"
    WARN = "warn"
    INSUFFICIENT_DATA = "insufficient_data"
    NOT_YET_MEASURED = "not_yet_measured"
    ATTESTED = "attested"
    PASS = "pass"
    NOT_APPLICABLE = "not_applicable"


OPEN = frozenset({Status.INSUFFICIENT_DATA, Status.NOT_YET_MEASURED})
_ORDER = tuple(Status)


@dataclass(frozen=True)
class CheckResult:
    """One condition and the fact it was held against; `why` says what a status without a number means."""

    metric: str
    op: str
    threshold: Value | tuple[float, float]
    threshold_status: LegalStatus
    status: Status
    artefact: str
    subject: str = ""
    value: Value | None = None
    interval: Interval | None = None
    why: str = ""


@dataclass(frozen=True)
class RuleResult:
    """
    A rule with its status and every condition behind it; `attested_by` names who answers for it.

    `at_the_gate` names the checks that must pass too before a promotion.
    """

    id: str
    title: str
    phase: Phase
    severity: Severity
    legal_status: LegalStatus
    sources: tuple[str, ...]
    status: Status
    checks: tuple[CheckResult, ...]
    attested_by: str = ""
    attested_on: str = ""
    why: str = ""
    at_the_gate: tuple[str, ...] = ()

    @property
    def blocks(self) -> bool:
        """Whether this stops a promotion: a failed rule of severity `block`, once measured in operation too."""
        return self.status is Status.FAIL and self.severity is Severity.BLOCK

    @property
    def deciding(self) -> CheckResult | None:
        """The condition that decided the status, or the first that could be measured."""
        same = [check for check in self.checks if check.status is self.status]
        measured = [check for check in same if check.value is not None]
        return next(iter(measured or same or self.checks), None)

    @property
    def inapplicable_checks(self) -> int:
        """How many conditions ask for what the portfolio cannot have."""
        return sum(check.status is Status.NOT_APPLICABLE for check in self.checks)

    @property
    def said(self) -> str:
        """The status in words, with how many conditions do not apply where others do."""
        words = self.status.replace("_", " ")
        if not self.inapplicable_checks or self.status is Status.NOT_APPLICABLE:
            return words
        return f"{words}; {self.inapplicable_checks} of {len(self.checks)} conditions do not apply"

    @property
    def open_checks(self) -> int:
        """How many conditions nothing can be said about yet."""
        return sum(check.status in OPEN for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The result as JSON."""
        plain = asdict(self)
        plain["sources"], plain["at_the_gate"] = list(self.sources), list(self.at_the_gate)
        plain["checks"] = [
            {key: list(value) if isinstance(value, tuple) else value for key, value in check.items()}
            for check in plain["checks"]
        ]
        return plain | {
            "blocks": self.blocks,
            "open_checks": self.open_checks,
            "inapplicable_checks": self.inapplicable_checks,
            "said": self.said,
            "number": self.number(),
            "plain": self.plain(),
        }

    def number(self) -> str:
        """The deciding number with its interval and threshold, in one line."""
        check = self.deciding
        if check is None or self.status is Status.NOT_APPLICABLE:
            return ""
        about = f"{check.metric}{f' ({check.subject})' if check.subject else ''}"
        if check.value is None:
            return f"{about}: {check.why}" if check.why else about
        span = f" ({_text(check.interval[0])} to {_text(check.interval[1])})" if check.interval else ""
        doubt = f": {_TOO_LITTLE}:" if check.status is Status.INSUFFICIENT_DATA else ""
        return f"{about}{doubt} {_text(check.value)}{span}, asked {check.op} {_text(check.threshold)}"

    def plain(self) -> str:
        """The deciding number in words, for whoever does not know the metrics by name."""
        check = self.deciding
        if check is None or self.status is Status.NOT_APPLICABLE:
            return ""
        about = f"{METRICS[check.metric]}{f' ({check.subject})' if check.subject else ''}"
        if check.value is None:
            return f"{about}: {check.why}" if check.why else about
        span = f" ({_rounded(check.interval[0])} to {_rounded(check.interval[1])})" if check.interval else ""
        doubt = f"{_TOO_LITTLE}: " if check.status is Status.INSUFFICIENT_DATA else ""
        return f"{about}: {doubt}{_rounded(check.value)}{span}, asked is {_WORDS[check.op]}{_rounded(check.threshold)}"


# A value that satisfies its condition would read as a pass without it.
_TOO_LITTLE = "too little data to say"
_WORDS = {"==": "", "<=": "at most ", "<": "less than ", ">=": "at least ", ">": "more than ", "between": "between "}


def _rounded(value: Value | tuple[float, float]) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value != int(value) and abs(value) >= 1e-3:
        return f"{value:.3f}".rstrip("0").replace("-", "\u2212")
    if isinstance(value, tuple | list):
        return f"{_rounded(value[0])} and {_rounded(value[1])}"
    return _text(value)


def _text(value: Value | tuple[float, float]) -> str:
    if isinstance(value, tuple | list):
        return f"{_text(value[0])} and {_text(value[1])}"
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else value
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.4f}" if abs(value) >= 1e-4 else f"{value:.1e}"


def evaluate(
    rulebook: Rulebook,
    facts: Iterable[Fact],
    jurisdiction: Jurisdiction,
    *,
    thresholds: Mapping[str, float],
    attestations: Sequence[Attestation] = (),
    today: date,
) -> list[RuleResult]:
    """
    The status of every rule for a jurisdiction, in the rulebook's order.

    `thresholds` are the portfolio's own numbers by name. An attestation counts only while it holds on `today`, and only
    for a rule that may be attested and that nothing was measured against.

    Raises:
        AttestationError: an attestation names no rule, or one that a program decides.
        FactError: a fact is of another kind than its threshold.
    """
    by_metric: dict[str, list[Fact]] = {}
    for fact in facts:
        by_metric.setdefault(fact.metric, []).append(fact)
    attestable = {rule.id: rule.attestable for rule in rulebook.rules}
    for attestation in attestations:
        if not attestable.get(attestation.rule, False):
            what = "is decided by measurement" if attestation.rule in attestable else "is no rule"
            raise AttestationError(f"{attestation.rule} {what}, so that nobody can attest it")
    held = {attestation.rule: attestation for attestation in attestations if attestation.holds_on(today)}
    return [_result(rule, by_metric, jurisdiction, thresholds, held.get(rule.id)) for rule in rulebook.rules]


def _result(
    rule: Rule,
    facts: Mapping[str, list[Fact]],
    jurisdiction: Jurisdiction,
    thresholds: Mapping[str, float],
    attestation: Attestation | None,
) -> RuleResult:
    common: dict[str, Any] = {
        name: getattr(rule, name)
        for name in ("id", "title", "phase", "severity", "legal_status", "sources", "at_the_gate")
    }
    if jurisdiction not in rule.jurisdictions:
        elsewhere = f"a rule for {', '.join(rule.jurisdictions)}"
        return RuleResult(**common, status=Status.NOT_APPLICABLE, checks=(), why=elsewhere)
    checks = tuple(
        result
        for check in rule.checks
        if check.jurisdictions is None or jurisdiction in check.jurisdictions
        for result in _check(rule, check, facts.get(check.metric, []), thresholds)
    )
    status = min((check.status for check in checks), key=_ORDER.index, default=Status.NOT_APPLICABLE)
    essential = {check.metric for check in rule.checks if check.essential}
    if status is Status.PASS and any(
        check.status is Status.NOT_APPLICABLE and check.metric in essential for check in checks
    ):
        status = Status.NOT_APPLICABLE  # what the rule is named for cannot be asked; a failure of the rest still counts
    why = "; ".join(dict.fromkeys(check.why for check in checks if check.status is status and check.why))
    if attestation is not None and status is Status.NOT_YET_MEASURED:
        return RuleResult(
            **common,
            status=Status.ATTESTED,
            checks=checks,
            attested_by=f"{attestation.name}, {attestation.role}",
            attested_on=attestation.date.isoformat(),
            why=attestation.statement,
        )
    return RuleResult(**common, status=status, checks=checks, why=why)


def _check(rule: Rule, check: RuleCheck, facts: list[Fact], thresholds: Mapping[str, float]) -> list[CheckResult]:
    own = check.threshold
    threshold = float(thresholds[own.portfolio]) if isinstance(own, OfPortfolio) else own
    common: dict[str, Any] = {
        "metric": check.metric,
        "op": check.op,
        "threshold": threshold,
        "threshold_status": check.threshold_status or rule.legal_status,
    }
    if not facts:
        missing = Status(check.on_missing or rule.on_missing)
        why = "not measured yet" if missing is Status.NOT_YET_MEASURED else f"missing from {rule.artefact}"
        return [CheckResult(**common, status=missing, artefact=rule.artefact, why=why)]
    return [
        CheckResult(
            **common,
            status=status,
            artefact=fact.artefact,
            subject=fact.subject,
            value=fact.value,
            interval=fact.interval,
            why=why,
        )
        for fact in facts
        for status, why in [_status(check, threshold, fact)]
    ]


def _status(check: RuleCheck, threshold: Value | tuple[float, float], fact: Fact) -> tuple[Status, str]:
    if fact.not_applicable:
        return Status.NOT_APPLICABLE, fact.not_applicable
    if fact.value is None:
        return Status.INSUFFICIENT_DATA, "too few to compute"
    holds = _holds(check.op, fact, fact.value, threshold)
    clearly = not holds and _lies_beyond(check.op, fact.interval, threshold)
    if clearly and (fact.sufficient or fact.interval is not None):
        return (Status.FAIL if check.on_breach == "fail" else Status.WARN), ""
    if fact.outdated:
        return Status.INSUFFICIENT_DATA, fact.outdated
    if not fact.sufficient:
        return Status.INSUFFICIENT_DATA, "too few for a verdict"
    if not holds:
        return Status.WARN, "the value lies beyond the threshold, its interval does not"
    return Status.PASS, ""


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "between": lambda value, bounds: bounds[0] <= value <= bounds[1],
}


def require_kind(fact: Fact, threshold: Threshold) -> None:
    """
    Hold the kind of a fact against that of its rule's threshold.

    Raises:
        FactError: it is of another kind, or has an interval and is no number.
    """
    if fact.value is None:
        return
    kinds = {bool: "a truth value", str: "a word"}
    expected, given = kinds.get(type(threshold), "a number"), kinds.get(type(fact.value), "a number")
    if expected != given:
        raise FactError(f"{fact.artefact}: {fact.metric} is {given}, and its rule asks for {expected}")
    if fact.interval is not None and given != "a number":
        raise FactError(f"{fact.artefact}: {fact.metric} is {given} and cannot have an interval")


def _holds(op: str, fact: Fact, value: Value, threshold: Value | tuple[float, float]) -> bool:
    require_kind(fact, threshold)
    return _OPERATORS[op](value, threshold)


def _lies_beyond(op: str, interval: Interval | None, threshold: Value | tuple[float, float]) -> bool:
    """Whether no value of the interval satisfies the condition; a value that is no estimate stands for itself."""
    if interval is None:
        return True
    low, high = interval
    if isinstance(threshold, tuple):
        return low > threshold[1] or high < threshold[0]
    if op == "==":
        return not low <= float(threshold) <= high
    return not _OPERATORS[op](high if op in (">=", ">") else low, threshold)
