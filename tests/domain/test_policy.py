"""The policy: what a file may say, and what its rules and cut-offs mean."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cde_domain.decisions.engine import DecisionEngine, check_policy
from cde_domain.decisions.policy import Condition, Policy, PolicyError
from tests.domain.open_book import CUT_OFFS, rule
from tests.support import TinyLoans


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
    assert f" {field}: " in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "version: '1'\napprove_at: 0.8\nreview_at: 0.2\napprove_at: 0.3\n",
        "version: '1'\napprove_at: 0.8\nreview_at: 0.2\n"
        "rules: [{code: LOW, when: {feature: f, approve_at: 1, below: 1, approve_at: 2}}]\n",
    ],
)
def test_a_cut_off_given_twice_is_refused_and_not_the_second_taken(text: str, tmp_path: Path):
    with pytest.raises(PolicyError, match=r"policy\.yaml: approve_at is given twice"):
        Policy.read(policy_file(tmp_path, text))


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
