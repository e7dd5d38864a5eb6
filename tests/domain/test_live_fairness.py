"""Groups in live decisions, looked at every day: an alarm for unequal treatment, and few for chance."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cde_domain.decisions.monitoring.live_fairness import fairness_alarms, live_fairness
from cde_domain.governance.fairness import AttributeResult, Verdict
from cde_domain.intervals import ratio_below
from cde_domain.portfolio import Portfolio, load_portfolio


@pytest.fixture(scope="module")
def german() -> Portfolio:
    return load_portfolio("german_credit")


def report(portfolio: Portfolio, groups: np.ndarray, approved: np.ndarray, rate: float = 0.01) -> AttributeResult:
    answered = np.where(approved, "APPROVED", "REJECTED")
    decisions = pd.DataFrame({"decision": answered, "protected.sex": groups})
    (result,) = live_fairness(portfolio, decisions, min_ratio=0.8, false_alarm_rate=rate)
    return result


@pytest.mark.parametrize(("rows", "many"), [(500, 2), (1_000, 4)])
def test_groups_that_are_treated_alike_alarm_no_more_often_than_stated(german: Portfolio, rows: int, many: int):
    random = np.random.default_rng(0)
    groups = np.arange(rows) % many
    failed = sum(
        report(german, groups, random.random(rows) < 0.3, rate=0.02).verdict is Verdict.FAIL for _ in range(100)
    )

    assert failed <= 2


def test_groups_on_the_line_alarm_no_more_often_than_stated(german: Portfolio):
    random, groups = np.random.default_rng(1), np.repeat(["a", "b"], 250)
    rates = np.where(groups == "a", 0.6, 0.48)
    failed = sum(
        report(german, groups, random.random(500) < rates, rate=0.1).verdict is Verdict.FAIL for _ in range(100)
    )

    assert failed <= 17  # of 10 to be expected; more in one of a hundred


def test_a_group_that_is_approved_half_as_often_is_seen_within_500_decisions(german: Portfolio):
    random, groups = np.random.default_rng(2), np.repeat(["a", "b"], 250)
    rates = np.where(groups == "a", 0.6, 0.3)
    results = [report(german, groups, random.random(500) < rates) for _ in range(50)]

    assert sum(result.verdict is Verdict.FAIL for result in results) >= 47
    assert all(alarm.said.startswith("sex b: approved") for one in results for alarm in fairness_alarms([one], 0.8))


def test_a_ratio_below_the_line_that_chance_explains_is_no_verdict(german: Portfolio):
    groups = np.repeat(["a", "b"], 250)
    approved = np.concatenate([np.arange(250) < 75, np.arange(250) < 57])  # 0.76 times as often

    result = report(german, groups, approved)

    assert result.verdict is Verdict.INSUFFICIENT_DATA
    assert fairness_alarms([result], 0.8) == []


def test_a_group_is_held_against_a_small_one_that_is_approved_far_more_often(german: Portfolio):
    groups = np.repeat(["a", "b", "c"], [300, 300, 100])
    approved = np.concatenate([np.arange(300) < 150, np.arange(300) < 145, np.arange(100) < 95])

    result = report(german, groups, approved)

    failed = {one.group: one.compared_with for one in result.groups if one.verdict is Verdict.FAIL}
    assert failed == {"a": "c", "b": "c"}


def test_a_group_of_under_30_is_not_compared(german: Portfolio):
    groups = np.repeat(["a", "b"], [400, 29])

    result = report(german, groups, np.arange(429) < 400)

    assert {one.group: one.verdict for one in result.groups}["b"] is Verdict.NOT_COMPUTED
    assert fairness_alarms([result], 0.8) == []


@given(rows=st.integers(1, 400), other_rows=st.integers(1, 400), line=st.floats(0.05, 1.0), shares=st.data())
def test_a_lower_share_is_never_likelier_on_the_line(rows: int, other_rows: int, line: float, shares: st.DataObject):
    other = shares.draw(st.integers(1, other_rows))
    successes = [yes for yes in range(rows + 1) if yes * other_rows < other * rows]
    chances = [ratio_below(yes, rows, other, other_rows, line=line) for yes in successes]

    assert all(0 <= chance <= 1 for chance in chances)
    assert chances == sorted(chances)
