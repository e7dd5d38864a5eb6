"""Many decisions at once: they are the engine's, and what holds for all of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.engine import DecidedBy, DecisionEngine
from cde_domain.decisions.policy import Condition, Outcome, Policy
from cde_domain.model.scoring_model import SigmoidCalibrator
from tests.domain.open_book import open_book, rule
from tests.support import TinyLoans


def applicants(rows: int, *, seed: int) -> np.ndarray:
    """Feature rows of the small portfolio, some out of range, some unknown."""
    random = np.random.default_rng(seed)
    matrix = np.column_stack(
        [
            random.lognormal(10.8, 0.8, rows),
            random.uniform(0.0, 1.05, rows),
            random.uniform(300, 900, rows),
            random.exponential(5000, rows),
            random.integers(0, 3, rows),
        ]
    )
    matrix[random.random(matrix.shape) < 0.04] = np.nan
    return matrix


@pytest.fixture(scope="module")
def ruled_engine(tiny_engine: DecisionEngine) -> DecisionEngine:
    """The trained model under a policy with rules of every kind."""
    rules = (
        rule("BUREAU_SCORE_TOO_LOW", Condition(feature="bureau_score", below=350)),
        rule("WEDDING", Condition(feature="loan_purpose", is_any_of=("wedding",)), Outcome.MANUAL_REVIEW),
        rule("MIDDLE", Condition(feature="loan_to_income", above=0.4, below=0.5)),
        rule("RICH", Condition(feature="annual_income", above=150_000), Outcome.MANUAL_REVIEW),
    )
    policy = Policy(version="1", approve_at=0.7, review_at=0.5, rules=rules)
    return DecisionEngine(tiny_engine.portfolio, tiny_engine.model, policy)


def test_many_decisions_at_once_are_those_of_the_engine(ruled_engine: DecisionEngine):
    matrix = applicants(2000, seed=3)
    scores = ruled_engine.model.scores(matrix)

    at_once = decide_all(ruled_engine.portfolio.features, matrix, scores, ruled_engine.policy, ruled_engine.model)

    alone = [ruled_engine.decide_features(matrix[row : row + 1]) for row in range(len(matrix))]
    assert at_once.tolist() == [str(decision.decision) for decision in alone]
    assert {str(decision.decided_by) for decision in alone} == {"model", "rule", "fallback"}
    assert set(at_once.tolist()) == {"APPROVED", "REJECTED", "MANUAL_REVIEW"}


def test_many_decisions_without_a_score_go_to_people(tiny: TinyLoans):
    engine = open_book(tiny)
    matrix = np.ones((3, 6))

    decisions = decide_all(engine.portfolio.features, matrix, np.array([0.9, np.nan, 0.1]), engine.policy, engine.model)

    assert decisions.tolist() == ["APPROVED", "MANUAL_REVIEW", "REJECTED"]


def test_many_decisions_without_a_model_have_no_range(ruled_engine: DecisionEngine):
    rich = np.array([[140_000.0, 9.9, 900.0, 1e9, 0.0]])

    decisions = decide_all(ruled_engine.portfolio.features, rich, np.array([0.9]), ruled_engine.policy)

    assert decisions.tolist() == ["APPROVED"]


def test_every_rejection_by_the_model_has_one_to_four_reasons_that_speak_against(tiny_engine: DecisionEngine):
    matrix = applicants(1500, seed=4)
    strict = replace(tiny_engine.model, calibrator=SigmoidCalibrator(1.0, -1.5))
    engine = DecisionEngine(tiny_engine.portfolio, strict, tiny_engine.policy)
    rejected = [
        decision
        for row in range(len(matrix))
        if (decision := engine.decide_features(matrix[row : row + 1])).decision is Outcome.REJECTED
        and decision.decided_by is DecidedBy.MODEL
    ]

    assert len(rejected) > 300
    for decision in rejected:
        contributions = np.array(list(decision.contributions.values()))
        speaks_against = ((contributions < 0) & (contributions < engine.model.reason_baseline)).any()
        cited = [decision.contributions[code.removesuffix("_UNKNOWN").lower()] for code in decision.reason_codes]
        assert 1 <= len(cited) <= 4
        assert max(cited) < 0 or not speaks_against
        unknown = {name.upper() + "_UNKNOWN" for name, value in decision.features.items() if value is None}
        assert {code for code in decision.reason_codes if code.endswith("_UNKNOWN")} <= unknown


@given(seed=st.integers(0, 10_000), position=st.sampled_from([0, 1, 2, 3]), share=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_what_can_only_help_never_turns_an_approval_into_a_rejection(
    ruled_engine: DecisionEngine, seed: int, position: int, share: float
):
    engine = DecisionEngine(
        ruled_engine.portfolio, ruled_engine.model, Policy(version="1", approve_at=0.6, review_at=0.59)
    )
    row = applicants(1, seed=seed)
    bounds = engine.model.ranges[position]
    assert bounds is not None
    better = row.copy()
    best = bounds[1] if engine.portfolio.features[position].monotone > 0 else bounds[0]
    better[0, position] += share * (best - better[0, position])

    before, after = engine.decide_features(row), engine.decide_features(better)

    assert before.score is not None and after.score is not None and after.score >= before.score
    assert not (before.decision is Outcome.APPROVED and after.decision is Outcome.REJECTED)
