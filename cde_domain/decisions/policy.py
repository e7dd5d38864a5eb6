"""The lending policy: cut-offs and knock-out rules, written as data in a portfolio's `policy.yaml`."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cde_domain.strict_yaml import read_yaml


class Outcome(StrEnum):
    """The three answers to an application."""

    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    MANUAL_REVIEW = "MANUAL_REVIEW"


class PolicyError(ValueError):
    """A policy file that cannot be used."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Condition(_Strict):
    """What a rule asks of one feature; several limits must hold together."""

    feature: str
    above: float | None = None
    below: float | None = None
    is_any_of: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> "Condition":
        if self.above is None and self.below is None and not self.is_any_of:
            raise ValueError("a condition needs `above`, `below` or `is_any_of`")
        return self

    def holds(self, value: float | str) -> bool:
        """Whether a known feature value (a category by its text) meets the condition."""
        if self.is_any_of is not None and value not in self.is_any_of:
            return False
        if self.above is not None and not float(value) > self.above:
            return False
        return self.below is None or float(value) < self.below


class Rule(_Strict):
    """A knock-out rule. A rule whose feature is unknown sends the application to MANUAL_REVIEW."""

    code: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    when: Condition
    decision: Literal[Outcome.REJECTED, Outcome.MANUAL_REVIEW]
    reason: str = Field(min_length=1)


class Policy(_Strict):
    """
    Cut-offs on P(repaid) and knock-out rules.

    Rules come first, in order, and the first that matches decides. Otherwise a score of at least `approve_at` is
    APPROVED, one below `review_at` REJECTED, and one between goes to MANUAL_REVIEW.
    """

    version: str = Field(min_length=1)
    approve_at: float = Field(gt=0, lt=1)
    review_at: float = Field(gt=0, lt=1)
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Policy":
        if self.review_at > self.approve_at:
            raise ValueError(f"review_at ({self.review_at}) must not exceed approve_at ({self.approve_at})")
        codes = [rule.code for rule in self.rules]
        if len(codes) != len(set(codes)):
            raise ValueError("rule codes must be unique")
        return self

    @classmethod
    def read(cls, path: Path) -> "Policy":
        """
        Read a policy file.

        Raises:
            PolicyError: the file is not YAML, or not a policy; the message names file and field.
        """
        try:
            return cls.model_validate(read_yaml(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            raise PolicyError(f"{path.name}: {_fields_of(error)}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise PolicyError(f"{path.name}: {error}") from error

    def by_score(self, score: float) -> Outcome:
        """The answer that the cut-offs give to a score."""
        if score >= self.approve_at:
            return Outcome.APPROVED
        return Outcome.MANUAL_REVIEW if score >= self.review_at else Outcome.REJECTED

    def matching_rule(self, features: Mapping[str, Any]) -> tuple[Rule, bool] | None:
        """The first rule that matches, or whose feature is unknown (None), and whether its feature was known."""
        for rule in self.rules:
            value = features[rule.when.feature]
            if value is None:
                return rule, False
            if rule.when.holds(value):
                return rule, True
        return None


def _fields_of(error: ValidationError) -> str:
    """What is wrong with which field, like `rules.0.when.below: Input should be a valid number`."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(": ".join(filter(None, [".".join(map(str, e["loc"])), e["msg"]])) for e in problems)
