"""The decision engine: one application in, one explained decision out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from cde_domain.application import columns_of
from cde_domain.decisions.policy import Outcome, Policy, PolicyError
from cde_domain.features.columns import columns_of_applications
from cde_domain.features.feature import feature_matrix
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio import Portfolio

Array = NDArray[np.float64]

MAX_REASONS = 4  # 12 CFR 1002.9(b)(2), comment 1: more than four are not likely to be helpful


class DecidedBy(StrEnum):
    """What led to a decision."""

    MODEL = "model"
    RULE = "rule"
    FALLBACK = "fallback"


class Routing(StrEnum):
    """Why an application goes to a person."""

    SCORE_BETWEEN_CUT_OFFS = "SCORE_BETWEEN_CUT_OFFS"
    OUTSIDE_TRAINED_RANGE = "OUTSIDE_TRAINED_RANGE"
    RULE_INPUT_UNKNOWN = "RULE_INPUT_UNKNOWN"
    SCORE_UNAVAILABLE = "SCORE_UNAVAILABLE"
    NO_SPECIFIC_REASON = "NO_SPECIFIC_REASON"
    AUTOMATIC_DECISIONS_STOPPED = "AUTOMATIC_DECISIONS_STOPPED"
    ENRICHMENT_UNAVAILABLE = "ENRICHMENT_UNAVAILABLE"
    ENRICHMENT_INVALID = "ENRICHMENT_INVALID"
    DECISION_FAILED = "DECISION_FAILED"


@dataclass(frozen=True)
class Decision:
    """
    A decision with its explanation.

    `contributions` are in margin space (log-odds before calibration); positive ones speak for the applicant.
    `detail` names the rule or the features behind a rule's or fallback's decision.
    """

    decision: Outcome
    score: float | None
    decided_by: DecidedBy
    reason_codes: tuple[str, ...]
    risk_factors: tuple[str, ...]
    base: float
    contributions: Mapping[str, float]
    features: Mapping[str, float | str | None]
    detail: str | None = None

    @property
    def confidence(self) -> float | None:
        """The probability of the likelier outcome."""
        return None if self.score is None else max(self.score, round(1.0 - self.score, 6))


class DecisionEngine:
    """
    Decides applications of one portfolio with one model under one policy.

    Raises:
        PolicyError: a rule asks for a feature that the portfolio does not have.
        ValueError: the model was made for other features.
    """

    def __init__(self, portfolio: Portfolio, model: ScoringModel, policy: Policy) -> None:
        names = tuple(feature.name for feature in portfolio.features)
        if names != model.feature_names:
            raise ValueError(f"the model was made for the features {model.feature_names}, not {names}")
        check_policy(portfolio, policy)
        self.portfolio = portfolio
        self.model = model
        self.policy = policy
        self._columns = columns_of(portfolio.application)
        self._baseline = np.array(model.reason_baseline)
        self._texts = [
            tuple((feature.reason_code(known=known), feature.reason_text(known=known)) for known in (False, True))
            for feature in portfolio.features
        ]

    def decide(self, application: BaseModel, applied_at: date) -> Decision:
        """Decide a validated application as of its date."""
        return self.decide_all([application], applied_at)[0]

    def decide_features(self, matrix: Array) -> Decision:
        """Decide from the features of one application, of shape (1, features)."""
        return self.decide_rows(matrix)[0]

    def decide_all(self, applications: Sequence[BaseModel], applied_at: date) -> list[Decision]:
        """Decide validated applications of one date in one pass, each to the same bits as alone."""
        if not applications:
            return []
        columns = columns_of_applications(applications, self._columns, applied_at)
        return self.decide_rows(feature_matrix(self.portfolio.features, columns))

    def decide_rows(self, matrix: Array) -> list[Decision]:
        """Decide from the features of applications, of shape (rows, features)."""
        margins, contributions = self.model.trees.explain(matrix)
        scores = self.model.calibrator.scores(margins).tolist()
        return [self._decision(*row) for row in zip(scores, contributions, matrix, strict=True)]

    def _decision(self, score: float, contributions: Array, row: Array) -> Decision:
        values = self._named_values(row)
        reasons = list(islice(self._reasons(contributions, row), MAX_REASONS))
        decision, decided_by, codes, detail = self._answer(score, values, row, reasons)
        return Decision(
            decision=decision,
            score=score if 0.0 <= score <= 1.0 else None,
            decided_by=decided_by,
            reason_codes=codes,
            risk_factors=tuple(text for _, text in reasons),
            base=self.model.base,
            contributions=dict(zip(self.model.feature_names, contributions.tolist(), strict=True)),
            features=values,
            detail=detail,
        )

    def _answer(
        self, score: float, values: Mapping[str, Any], row: Array, reasons: list[tuple[str, str]]
    ) -> tuple[Outcome, DecidedBy, tuple[str, ...], str | None]:
        if match := self.policy.matching_rule(values):
            rule, known = match
            if known:
                return Outcome(rule.decision), DecidedBy.RULE, (rule.code,), rule.reason
            return Outcome.MANUAL_REVIEW, DecidedBy.RULE, (Routing.RULE_INPUT_UNKNOWN,), rule.when.feature
        if not 0.0 <= score <= 1.0:  # nor does NaN lie there
            return Outcome.MANUAL_REVIEW, DecidedBy.FALLBACK, (Routing.SCORE_UNAVAILABLE,), None
        if outside := self.model.outside_range(row):
            return Outcome.MANUAL_REVIEW, DecidedBy.FALLBACK, (Routing.OUTSIDE_TRAINED_RANGE,), ", ".join(outside)
        decision = self.policy.by_score(score)
        codes: tuple[str, ...] = ()
        if decision is Outcome.MANUAL_REVIEW:
            codes = (Routing.SCORE_BETWEEN_CUT_OFFS,)
        elif decision is Outcome.REJECTED:
            codes = tuple(code for code, _ in reasons)
            if not codes:  # nobody is rejected without being told why
                return Outcome.MANUAL_REVIEW, DecidedBy.FALLBACK, (Routing.NO_SPECIFIC_REASON,), None
        return decision, DecidedBy.MODEL, codes, None

    def _reasons(self, contributions: Array, row: Array) -> Iterator[tuple[str, str]]:
        """Codes and texts of what speaks against the applicant, what separates them most from approval first."""
        shortfall = contributions - self._baseline
        against = ((shortfall < 0) & (contributions < 0)).tolist()
        if not any(against):  # below the baseline in sum, yet in nothing below the average applicant
            against = (shortfall < 0).tolist()
        known = (row == row).tolist()
        for position in np.argsort(shortfall, kind="stable").tolist():
            if against[position]:
                yield self._texts[position][known[position]]

    def _named_values(self, row: Array) -> dict[str, float | str | None]:
        values: dict[str, float | str | None] = {}
        for feature, value in zip(self.portfolio.features, row.tolist(), strict=True):
            known = value == value
            values[feature.name] = (feature.categories[int(value)] if feature.categories else value) if known else None
        return values


def check_policy(portfolio: Portfolio, policy: Policy) -> None:
    """
    Check a policy against its portfolio.

    Raises:
        PolicyError: a rule asks for a feature or category that the portfolio does not have.
    """
    features = {feature.name: feature for feature in portfolio.features}
    for rule in policy.rules:
        feature = features.get(rule.when.feature)
        if feature is None:
            raise PolicyError(f"rule {rule.code}: there is no feature {rule.when.feature!r}")
        unknown = set(rule.when.is_any_of or ()) - set(feature.categories)
        if unknown:
            raise PolicyError(f"rule {rule.code}: {feature.name} has no category {sorted(unknown)}")
