"""The rulebook: what must be true of a model, its data and its service, as typed data read from `rulebook.yaml`."""

from dataclasses import fields
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cde_domain.governance.facts import METRICS
from cde_domain.portfolio import Thresholds
from cde_domain.strict_yaml import read_yaml

FILE = Path(__file__).with_name("rulebook.yaml")

Jurisdiction = Literal["IN", "US", "EU"]
Operator = Literal["==", "<=", "<", ">=", ">", "between"]


class RulebookError(ValueError):
    """A rulebook that cannot be used."""


class LegalStatus(StrEnum):
    """How binding a duty, or a number, is."""

    IN_FORCE = "in_force"
    DRAFT = "draft"
    GUIDANCE = "guidance"
    DEFERRED = "deferred"
    CONVENTION = "convention"
    PROJECT_DEFAULT = "project_default"


class Severity(StrEnum):
    """What a failure does: `block` stops the promotion."""

    BLOCK = "block"
    WARN = "warn"
    INFO = "info"


class Phase(StrEnum):
    """When a rule is decided: from artefacts before a promotion, or on the running service."""

    PROMOTION = "promotion"
    OPERATION = "operation"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OfPortfolio(_Strict):
    """A threshold that the portfolio sets, by the name of its field in `Thresholds`."""

    portfolio: str

    @model_validator(mode="after")
    def _exists(self) -> "OfPortfolio":
        if self.portfolio not in {field.name for field in fields(Thresholds)}:
            raise ValueError(f"a portfolio has no threshold {self.portfolio!r}")
        return self


Threshold = bool | float | str | tuple[float, float] | OfPortfolio


class RuleCheck(_Strict):
    """
    One condition of a rule on one metric.

    An estimate breaches it only if its whole 95 % interval lies beyond the threshold; if only the value does, that is a
    warning. `jurisdictions` narrows it further than its rule, `threshold_status` says how binding the number is where
    that differs from the duty's, `on_missing` overrides the rule's. An `essential` condition is what the rule is named
    for: where it does not apply, the rule cannot pass by the others.
    """

    metric: str
    op: Operator
    threshold: Threshold
    threshold_status: LegalStatus | None = None
    on_breach: Literal["fail", "warn"] = "fail"
    on_missing: Literal["fail", "not_yet_measured"] | None = None
    jurisdictions: tuple[Jurisdiction, ...] | None = None
    essential: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "RuleCheck":
        if self.metric not in METRICS:
            raise ValueError(f"asks for unknown metric {self.metric!r}")
        if (self.op == "between") != isinstance(self.threshold, tuple):
            raise ValueError(f"on {self.metric}: `between` goes with [low, high], and nothing else does")
        if isinstance(self.threshold, bool | str) and self.op != "==":
            raise ValueError(f"on {self.metric}: {self.threshold!r} can only be compared with ==")
        return self


class Rule(_Strict):
    """
    One rule with its conditions, all of which must hold.

    `at_the_gate` names blocking checks (`asset/check`) that decide the rest of it after the rules were decided:
    nothing is promoted unless they passed too.
    """

    id: str = Field(pattern=r"^[A-Z]+-\d\d$")
    title: str = Field(min_length=1)
    phase: Phase
    severity: Severity
    jurisdictions: tuple[Jurisdiction, ...] = Field(min_length=1)
    legal_status: LegalStatus
    sources: tuple[str, ...] = Field(min_length=1)
    artefact: str
    on_missing: Literal["fail", "not_yet_measured"]
    attestable: bool = False
    at_the_gate: tuple[str, ...] = ()
    checks: tuple[RuleCheck, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Rule":
        if self.phase is Phase.OPERATION and self.on_missing == "fail":
            raise ValueError("is a rule of operation, which cannot fail for want of a running service")
        return self


class Rulebook(_Strict):
    """All rules, and when their sources were last read."""

    version: str
    sources_checked_on: date
    stale_after_days: int = Field(gt=0)
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> "Rulebook":
        ids = [rule.id for rule in self.rules]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"{twice[0]} is there twice")
        return self

    @classmethod
    def read(cls, path: Path = FILE) -> "Rulebook":
        """
        Read a rulebook.

        Raises:
            RulebookError: the file is not YAML or not a rulebook; the message names file, rule and field.
        """
        try:
            content = read_yaml(path.read_text(encoding="utf-8"))
            return cls.model_validate(content)
        except ValidationError as error:
            problems = "; ".join(_problem(content, problem) for problem in error.errors(include_url=False))
            raise RulebookError(f"{path.name}: {problems}") from error
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise RulebookError(f"{path.name}: {error}") from error

    def is_stale(self, today: date) -> bool:
        """Whether the sources were read too long ago to be relied on."""
        return today > self.sources_checked_on + timedelta(days=self.stale_after_days)


def _problem(content: Any, problem: Any) -> str:
    """One problem of a rulebook, with the rule's id and the field."""
    place, said = problem["loc"], problem["msg"].removeprefix("Value error, ")
    if place[:1] != ("rules",) or len(place) < 2:
        return f"{'.'.join(map(str, place))}: {said}" if place else said
    rule = content["rules"][place[1]]
    name = rule.get("id", place[1] + 1) if isinstance(rule, dict) else place[1] + 1
    of_rule_or_check = problem["type"] == "value_error" and len(place) in (2, 4)
    field = "" if of_rule_or_check else f"{'.'.join(map(str, place[2:]))}: "
    return f"rule {name} {field}{said}"
