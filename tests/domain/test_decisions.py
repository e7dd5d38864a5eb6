"""Decisions: what the policy says, who decides, and which reasons a rejected applicant is given."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.engine import DecidedBy, Decision, DecisionEngine, Routing, check_policy
from cde_domain.decisions.policy import Condition, Outcome, Policy, PolicyError, Rule
from cde_domain.features.feature import Feature
from cde_domain.model.compilation import compile_trees
from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble
from cde_domain.model.scoring_model import ScoringModel, SigmoidCalibrator
from tests.support import TinyLoans

TODAY = date(2026, 3, 1)
CUT_OFFS: Mapping[str, Any] = {"version": "1", "approve_at": 0.8, "review_at": 0.4}


def policy_file(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("version: '1'\nreview_at: 0.4\n", "approve_at"),
        ("version: '1'\napprove_at: high\nreview_at: 0.4\n", "approve_at"),
        ("version: '1'\napprove_at: 1.2\nreview_at: 0.4\n", "approve_at"),
        ("version: '1'\napprove_at: 0.8\nreview_at: .nan\n", "review_at"),
        ("version: '1'\napprove_at: 0.8\nreview_at: 0.4\napprove_att: 0.5\n", "approve_att"),
        ("version: 1\napprove_at: 0.8\nreview_at: 0.4\n", "version"),
        ("version: '1'\napprove_at: 0.8\nreview_at: 0.4\nrules: [{code: too low}]\n", "rules.0.code"),
        (
            "version: '1'\napprove_at: 0.8\nreview_at: 0.4\n"
            "rules: [{code: LOW, when: {feature: f, below: 1}, decision: APPROVED, reason: r}]\n",
            "rules.0.decision",
        ),
        (
            "version: '1'\napprove_at: 0.8\nreview_at: 0.4\n"
            "rules: [{code: LOW, when: {feature: f}, decision: REJECTED, reason: r}]\n",
            "rules.0.when",
        ),
    ],
)
def test_a_policy_that_cannot_be_used_is_refused_naming_file_and_field(text: str, field: str, tmp_path: Path):
    with pytest.raises(PolicyError) as refused:
        Policy.read(policy_file(tmp_path, text))

    assert str(refused.value).startswith("policy.yaml: ")
    assert f"\n{field}\n" in str(refused.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "approve_at: [0.8\n", "approve_at: 0.8\n\tx: 1\n"])
def test_a_file_that_holds_no_policy_is_refused_by_name(text: str, tmp_path: Path):
    with pytest.raises(PolicyError, match=r"^policy\.yaml: "):
        Policy.read(policy_file(tmp_path, text))


def test_the_review_cut_off_may_not_lie_above_approval(tmp_path: Path):
    with pytest.raises(PolicyError, match=r"review_at \(0\.9\) must not exceed approve_at \(0\.8\)"):
        Policy.read(policy_file(tmp_path, "version: '1'\napprove_at: 0.8\nreview_at: 0.9\n"))


def test_two_rules_may_not_share_a_code():
    low = rule("LOW", Condition(feature="a", below=1))

    with pytest.raises(ValueError, match="codes must be unique"):
        Policy(**CUT_OFFS, rules=(low, low))


@pytest.mark.parametrize(
    ("score", "outcome"),
    [(1.0, "APPROVED"), (0.8, "APPROVED"), (0.799999, "MANUAL_REVIEW"), (0.4, "MANUAL_REVIEW"), (0.399999, "REJECTED")],
)
def test_the_cut_offs_belong_to_the_better_answer(score: float, outcome: str):
    assert Policy(**CUT_OFFS).by_score(score) == outcome


def rule(code: str, when: Condition, decision: Outcome = Outcome.REJECTED) -> Rule:
    return Rule(code=code, when=when, decision=decision, reason=f"because of {code}")


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ({"below": 350}, 349.9, True),
        ({"below": 350}, 350.0, False),
        ({"above": 0.5}, 0.5, False),
        ({"above": 0.5}, 0.51, True),
        ({"above": 1, "below": 2}, 1.5, True),
        ({"above": 1, "below": 2}, 2.5, False),
        ({"is_any_of": ["car", "other"]}, "other", True),
        ({"is_any_of": ["car", "other"]}, "wedding", False),
    ],
)
def test_a_condition_holds_strictly_within_its_limits(condition: dict[str, Any], value: float | str, holds: bool):
    assert Condition(feature="f", **condition).holds(value) is holds


def test_a_rule_about_a_feature_that_does_not_exist_is_refused(tiny: TinyLoans):
    policy = Policy(**CUT_OFFS, rules=(rule("LOW", Condition(feature="shoe_size", below=1)),))

    with pytest.raises(PolicyError, match="rule LOW: there is no feature 'shoe_size'"):
        check_policy(tiny.portfolio, policy)


def test_a_rule_about_a_category_that_does_not_exist_is_refused(tiny: TinyLoans):
    policy = Policy(**CUT_OFFS, rules=(rule("YACHT", Condition(feature="loan_purpose", is_any_of=("yacht",))),))

    with pytest.raises(PolicyError, match=r"rule YACHT: loan_purpose has no category \['yacht'\]"):
        check_policy(tiny.portfolio, policy)


def test_a_model_of_other_features_is_refused(tiny: TinyLoans, tiny_engine: DecisionEngine):
    other = replace(tiny.portfolio, features=tuple(reversed(tiny.portfolio.features)))

    with pytest.raises(ValueError, match="the model was made for the features"):
        DecisionEngine(other, tiny_engine.model, tiny_engine.policy)


# A model whose contributions can be read off: one stump a feature, which gives +weight from 0 on and -weight below.
WEIGHTS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
NAMES = ("income", "savings", "tenure", "history", "deposit", "purpose")
BAD, GOOD, UNKNOWN = -1.0, 1.0, float("nan")
PURPOSES = ("yacht", "car", "house")


def stump(position: int, weight: float) -> Tree:
    categorical = NAMES[position] == "purpose"
    return Tree(
        left=np.array([1, LEAF, LEAF], dtype=np.int32),
        right=np.array([2, LEAF, LEAF], dtype=np.int32),
        feature=np.array([position, 0, 0], dtype=np.int32),
        threshold=np.zeros(3),
        categorical=np.array([categorical, False, False]),
        left_categories=np.array([1, 0, 0], dtype=np.uint64),  # the yacht
        missing_left=np.ones(3, dtype=bool),
        value=np.array([0.0, -weight, weight]),
        cover=np.array([100.0, 50.0, 50.0]),
    )


def open_book(
    tiny: TinyLoans,
    *,
    rules: tuple[Rule, ...] = (),
    baseline: tuple[float, ...] = WEIGHTS,
    intercept: float = 0.0,
    unknown_seen: bool = True,
) -> DecisionEngine:
    """An engine of that model; by default the applicant who just passed has everything in their favour."""
    features = tuple(
        Feature(name, lambda columns: columns["annual_income"], f"The {name}", f"{name} is low", monotone=1)
        if name != "purpose"
        else Feature(name, lambda columns: columns["loan_purpose"], "The purpose", "It is a yacht", categories=PURPOSES)
        for name in NAMES
    )
    model = ScoringModel(
        trees=compile_trees(TreeEnsemble(tuple(map(stump, range(6), WEIGHTS)), 0.0, 6)),
        calibrator=SigmoidCalibrator(1.0, intercept),
        feature_names=NAMES,
        ranges=((-1.0, 1.0),) * 5 + ((0.0, 2.0),),
        unknown_seen=(unknown_seen,) * 6,
        reason_baseline=baseline,
    )
    return DecisionEngine(replace(tiny.portfolio, features=features), model, Policy(**CUT_OFFS, rules=rules))


def decide(engine: DecisionEngine, *values: float) -> Decision:
    return engine.decide_features(np.array([values]))


def test_the_score_decides_where_no_rule_does(tiny: TinyLoans):
    engine = open_book(tiny)

    approved = decide(engine, GOOD, GOOD, GOOD, GOOD, GOOD, 1)
    between = decide(engine, GOOD, BAD, BAD, GOOD, GOOD, 1)

    assert (approved.decision, approved.decided_by, approved.reason_codes) == ("APPROVED", "model", ())
    assert (between.decision, between.reason_codes) == ("MANUAL_REVIEW", (Routing.SCORE_BETWEEN_CUT_OFFS,))
    assert approved.score == approved.confidence == pytest.approx(1 / (1 + np.exp(-2.1)), abs=5e-7)


def test_an_unlikely_repayment_is_a_confident_rejection(tiny: TinyLoans):
    rejected = decide(open_book(tiny), BAD, BAD, BAD, BAD, BAD, 0)

    assert rejected.score is not None
    assert rejected.confidence == round(1 - rejected.score, 6)


def test_a_rejection_names_its_four_worst_reasons_and_no_more_risk_factors(tiny: TinyLoans):
    rejected = decide(open_book(tiny), BAD, BAD, BAD, BAD, BAD, 0)

    assert rejected.reason_codes == ("INCOME", "SAVINGS", "TENURE", "HISTORY")
    assert rejected.risk_factors == (*(f"{name} is low" for name in NAMES[:4]),)


def test_reasons_are_ordered_by_what_separates_from_those_who_just_passed(tiny: TinyLoans):
    already_bad_among_those_who_passed = (-0.6, *WEIGHTS[1:])

    rejected = decide(
        open_book(tiny, baseline=already_bad_among_those_who_passed), BAD, BAD, BAD, BAD, BAD, 1
    )  # income separates nobody

    assert rejected.reason_codes == ("SAVINGS", "TENURE", "HISTORY", "DEPOSIT")


def test_what_speaks_for_the_applicant_is_no_reason(tiny: TinyLoans):
    generous = (5.0,) * 6  # those who just passed are better in everything

    rejected = decide(open_book(tiny, baseline=generous, intercept=-3.0), BAD, GOOD, BAD, GOOD, BAD, 1)

    assert rejected.contributions["savings"] > 0
    assert rejected.reason_codes == ("INCOME", "TENURE", "DEPOSIT")
    assert set(rejected.risk_factors) == {"income is low", "tenure is low", "deposit is low"}


def test_a_rejection_has_a_reason_even_if_nothing_speaks_against_the_applicant(tiny: TinyLoans):
    strict = open_book(tiny, baseline=(0.9, 0.5, 0.4, 0.3, 0.2, 0.1), intercept=-9.0)

    rejected = decide(strict, GOOD, GOOD, GOOD, GOOD, GOOD, 1)

    assert (rejected.decision, rejected.reason_codes) == (Outcome.REJECTED, ("INCOME",))


def test_what_is_unknown_is_named_as_unknown(tiny: TinyLoans):
    rejected = decide(open_book(tiny), UNKNOWN, BAD, BAD, BAD, GOOD, UNKNOWN)

    assert rejected.reason_codes == ("INCOME_UNKNOWN", "SAVINGS", "TENURE", "HISTORY")
    assert rejected.risk_factors[0] == "Not known: the income"
    reviewed = decide(open_book(tiny), UNKNOWN, BAD, GOOD, GOOD, GOOD, UNKNOWN)
    assert reviewed.risk_factors == ("Not known: the income", "savings is low", "Not known: the purpose")
    assert rejected.features["income"] is rejected.features["purpose"] is None


def test_categories_are_recorded_by_their_words(tiny: TinyLoans):
    assert decide(open_book(tiny), GOOD, GOOD, GOOD, GOOD, GOOD, 2).features["purpose"] == "house"


def test_the_explanation_adds_up_to_the_margin(tiny: TinyLoans):
    decision = decide(open_book(tiny), GOOD, BAD, GOOD, BAD, GOOD, 0)

    assert decision.contributions == pytest.approx(dict(zip(NAMES, (0.6, -0.5, 0.4, -0.3, 0.2, -0.1), strict=True)))
    assert decision.base + sum(decision.contributions.values()) == pytest.approx(0.3)


LOW_INCOME = rule("INCOME_TOO_LOW", Condition(feature="income", below=0))
NO_YACHTS = rule("NO_YACHTS", Condition(feature="purpose", is_any_of=("yacht",)), Outcome.MANUAL_REVIEW)


def test_a_knock_out_carries_its_own_code_and_the_contributions_are_still_there(tiny: TinyLoans):
    knocked_out = decide(open_book(tiny, rules=(LOW_INCOME,)), BAD, GOOD, GOOD, GOOD, GOOD, 1)

    assert knocked_out.decision is Outcome.REJECTED
    assert knocked_out.decided_by is DecidedBy.RULE
    assert knocked_out.reason_codes == ("INCOME_TOO_LOW",)
    assert knocked_out.detail == "because of INCOME_TOO_LOW"
    assert knocked_out.contributions["income"] == pytest.approx(-0.6)
    assert knocked_out.score is not None


@pytest.mark.parametrize(
    ("rules", "code"), [((LOW_INCOME, NO_YACHTS), "INCOME_TOO_LOW"), ((NO_YACHTS, LOW_INCOME), "NO_YACHTS")]
)
def test_the_first_rule_that_matches_wins(rules: tuple[Rule, ...], code: str, tiny: TinyLoans):
    decision = decide(open_book(tiny, rules=rules), BAD, GOOD, GOOD, GOOD, GOOD, 0)

    assert decision.reason_codes == (code,)


def test_a_rule_that_does_not_match_leaves_the_decision_to_the_next(tiny: TinyLoans):
    decision = decide(open_book(tiny, rules=(LOW_INCOME, NO_YACHTS)), GOOD, GOOD, GOOD, GOOD, GOOD, 0)

    assert (decision.decision, decision.reason_codes) == (Outcome.MANUAL_REVIEW, ("NO_YACHTS",))


def test_a_rule_whose_input_is_unknown_sends_the_application_to_a_person(tiny: TinyLoans):
    decision = decide(open_book(tiny, rules=(LOW_INCOME,)), UNKNOWN, GOOD, GOOD, GOOD, GOOD, 1)

    assert decision.decision is Outcome.MANUAL_REVIEW
    assert decision.reason_codes == (Routing.RULE_INPUT_UNKNOWN,)
    assert decision.detail == "income"


def test_an_earlier_knock_out_stands_whatever_a_later_rule_does_not_know(tiny: TinyLoans):
    decision = decide(open_book(tiny, rules=(LOW_INCOME, NO_YACHTS)), BAD, GOOD, GOOD, GOOD, GOOD, UNKNOWN)

    assert decision.reason_codes == ("INCOME_TOO_LOW",)


def test_a_value_outside_the_trained_range_sends_the_application_to_a_person(tiny: TinyLoans):
    decision = decide(open_book(tiny), 1.01, GOOD, GOOD, -1.01, GOOD, 1)

    assert (decision.decision, decision.decided_by) == (Outcome.MANUAL_REVIEW, DecidedBy.FALLBACK)
    assert decision.reason_codes == (Routing.OUTSIDE_TRAINED_RANGE,)
    assert decision.detail == "income, history"


def test_an_absence_that_training_never_met_sends_the_application_to_a_person(tiny: TinyLoans):
    decision = decide(open_book(tiny, unknown_seen=False), GOOD, UNKNOWN, GOOD, GOOD, GOOD, 1)

    assert (decision.decision, decision.decided_by) == (Outcome.MANUAL_REVIEW, DecidedBy.FALLBACK)
    assert (decision.reason_codes, decision.detail) == ((Routing.OUTSIDE_TRAINED_RANGE,), "savings")


def test_a_score_that_is_no_number_is_never_an_approval(tiny: TinyLoans):
    decision = decide(open_book(tiny, intercept=float("nan")), GOOD, GOOD, GOOD, GOOD, GOOD, 1)

    assert (decision.decision, decision.decided_by) == (Outcome.MANUAL_REVIEW, DecidedBy.FALLBACK)
    assert decision.reason_codes == (Routing.SCORE_UNAVAILABLE,)
    assert decision.score is decision.confidence is None


def test_a_knock_out_needs_no_score(tiny: TinyLoans):
    engine = open_book(tiny, rules=(LOW_INCOME,), intercept=float("nan"))

    assert decide(engine, BAD, GOOD, GOOD, GOOD, GOOD, 1).reason_codes == ("INCOME_TOO_LOW",)


def test_the_example_of_the_portfolio_is_decided(tiny: TinyLoans, tiny_engine: DecisionEngine):
    application = tiny.portfolio.application.model_validate(
        {**tiny.portfolio.example, "employed_since": date(2020, 3, 1)}
    )

    decision = tiny_engine.decide(application, TODAY)

    assert decision.decided_by is DecidedBy.MODEL
    assert decision.features["loan_to_income"] == pytest.approx(5000 / 60000)
    assert decision.features["total_balance"] == 1200.0


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


@given(income=st.floats(10_000, 200_000), more=st.floats(1, 3), loan=st.floats(1000, 50_000))
@settings(max_examples=100, deadline=None)
def test_more_income_never_lowers_the_score_of_an_application(
    tiny_engine: DecisionEngine, income: float, more: float, loan: float
):
    def score(annual_income: float) -> float:
        application = tiny_engine.portfolio.application.model_validate(
            {"customer_id": "c", "annual_income": annual_income, "loan_amount": loan, "loan_purpose": "car"}
        )
        decided = tiny_engine.decide(application, TODAY).score
        assert decided is not None
        return decided

    assert score(income * more) >= score(income)
