"""Adverse impact: what may be said of a group, and what a small group cannot say."""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_ratio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact, norm

from cde_checks.governance import four_fifths_holds
from cde_domain.governance.fairness import AttributeResult, GroupResult, Verdict, adverse_impact

Approvals = Mapping[object, tuple[int, int]]  # group: (rows, approved)


def impact(approvals: Approvals, *, use: str = "gate", min_ratio: float = 0.8) -> AttributeResult:
    """Fairness of a book with so many rows and approvals by group; None is an unknown group."""
    groups = [group for group, (rows, _) in approvals.items() for _ in range(rows)]
    approved = [row < yes for rows, yes in approvals.values() for row in range(rows)]
    decided = np.array(approved, dtype=bool)
    return adverse_impact(
        pd.Series(groups, dtype="object"),
        decided,
        ~decided,
        attribute="district",
        use=use,
        why="a test",
        min_ratio=min_ratio,
    )


def verdicts(result: AttributeResult) -> dict[str, str]:
    return {group.group: str(group.verdict) for group in result.groups}


def group_of(result: AttributeResult, name: str) -> GroupResult:
    return next(group for group in result.groups if group.group == name)


def test_twenty_nine_applicants_are_not_computed():
    result = impact({"north": (400, 300), "south": (29, 0)})

    assert verdicts(result) == {"north": "reference", "south": "not_computed"}
    assert group_of(result, "south").approval_rate is None


@pytest.mark.parametrize("rows", [30, 249])
def test_a_small_group_that_looks_fair_is_insufficient_data(rows: int):
    assert verdicts(impact({"north": (400, 200), "south": (rows, rows)}))["south"] == "insufficient_data"


@pytest.mark.parametrize("rows", [30, 249])
def test_a_small_group_fails_if_it_is_significantly_worse(rows: int):
    assert verdicts(impact({"north": (400, 300), "south": (rows, rows // 10)}))["south"] == "fail"


def test_a_small_group_that_is_worse_by_chance_is_insufficient_data():
    south = group_of(impact({"north": (400, 240), "south": (30, 14)}), "south")

    assert south.impact_ratio is not None and south.impact_ratio < 0.8
    assert south.p_value is not None and south.p_value > 0.05
    assert south.verdict is Verdict.INSUFFICIENT_DATA


def test_a_small_group_that_is_significantly_worse_within_four_fifths_is_insufficient_data():
    south = group_of(impact({"north": (4000, 3900), "south": (249, 210)}), "south")

    assert south.impact_ratio is not None and south.impact_ratio > 0.8
    assert south.p_value is not None and south.p_value < 0.05
    assert south.verdict is Verdict.INSUFFICIENT_DATA


@pytest.mark.parametrize(("approved", "verdict"), [(199, "fail"), (200, "pass"), (201, "pass")])
def test_from_two_hundred_and_fifty_the_ratio_alone_decides(approved: int, verdict: str):
    assert verdicts(impact({"north": (250, 250), "south": (250, approved)}))["south"] == verdict


def test_a_large_group_fails_below_four_fifths_even_if_chance_could_explain_it():
    south = group_of(impact({"north": (250, 20), "south": (250, 15)}), "south")

    assert south.p_value is not None and south.p_value > 0.05
    assert south.verdict is Verdict.FAIL


@given(rows=st.integers(250, 2000), fifth=st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_exactly_four_fifths_is_not_below_it(rows: int, fifth: int):
    same_size = impact({"north": (rows, 5 * fifth), "south": (rows, 4 * fifth)})

    assert verdicts(same_size)["south"] == "pass"
    assert group_of(same_size, "south").impact_ratio == 0.8


def test_another_limit_moves_the_verdict():
    assert verdicts(impact({"north": (300, 200), "south": (300, 170)}, min_ratio=0.9))["south"] == "fail"


def test_the_reference_is_the_most_approved_large_group():
    result = impact({"huge": (900, 450), "large": (250, 200), "small": (249, 249)})

    assert verdicts(result) == {"huge": "fail", "large": "reference", "small": "insufficient_data"}


def test_without_a_large_group_the_largest_is_the_reference():
    result = impact({"most": (200, 100), "best": (150, 80), "rest": (100, 5)})

    assert verdicts(result) == {"most": "reference", "best": "insufficient_data", "rest": "fail"}


def test_a_large_group_approved_significantly_less_than_a_small_one_fails():
    result = impact({"favoured": (200, 180), "others": (4000, 2000)})

    assert verdicts(result) == {"favoured": "insufficient_data", "others": "fail"}


def test_of_two_small_groups_the_significantly_less_approved_fails_even_if_it_is_the_larger():
    result = impact({"favoured": (240, 216), "others": (249, 100)})

    assert verdicts(result)["others"] == "fail"


def test_a_reference_that_is_never_approved_allows_no_verdict():
    result = impact({"north": (400, 0), "south": (300, 0)})

    assert sorted(verdicts(result).values()) == ["insufficient_data", "reference"]
    assert result.verdict is Verdict.INSUFFICIENT_DATA


def test_applicants_of_unknown_group_are_counted_and_belong_to_none():
    result = impact({"north": (300, 200), None: (41, 0), "south": (300, 200), float("nan"): (2, 2)})

    assert result.unknown_rows == 43
    assert sum(group.rows for group in result.groups) == 600
    assert {group.group for group in result.groups} == {"north", "south"}


def test_a_book_whose_groups_are_all_unknown_has_no_verdict():
    result = impact({None: (300, 200)})

    assert (result.groups, result.unknown_rows) == ((), 300)
    assert result.verdict is Verdict.INSUFFICIENT_DATA


def test_a_book_with_one_group_only_has_nothing_to_compare():
    assert impact({"north": (300, 200)}).verdict is Verdict.INSUFFICIENT_DATA


def test_the_ratio_is_fairlearns_demographic_parity_ratio():
    approved = np.array([1] * 210 + [0] * 90 + [1] * 150 + [0] * 250)
    groups = np.array(["north"] * 300 + ["south"] * 400)

    theirs = demographic_parity_ratio(approved, approved, sensitive_features=groups)

    assert group_of(impact({"north": (300, 210), "south": (400, 150)}), "south").impact_ratio == pytest.approx(theirs)


def test_the_numbers_of_a_group_are_those_of_a_pencil():
    south = group_of(impact({"north": (300, 210), "south": (400, 150)}), "south")

    assert south.approval_rate == 0.375
    assert south.review_rate == 0.625
    assert south.impact_ratio == pytest.approx(0.375 / 0.7)
    assert south.p_value == pytest.approx(fisher_exact([[150, 250], [210, 90]]).pvalue)
    log_error = np.sqrt(1 / 150.5 - 1 / 400.5 + 1 / 210.5 - 1 / 300.5)
    ratio = (150.5 / 400.5) / (210.5 / 300.5)
    assert south.interval == pytest.approx(ratio * np.exp(norm.ppf([0.025, 0.975]) * log_error))


def test_a_group_without_any_approval_has_an_interval_too():
    south = group_of(impact({"north": (300, 210), "south": (300, 0)}), "south")

    assert south.impact_ratio == 0.0
    assert south.interval is not None and 0 < south.interval[0] < south.interval[1] < 0.1


GROUPS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.tuples(st.integers(1, 400), st.floats(0, 1)).map(lambda drawn: (drawn[0], int(drawn[0] * drawn[1]))),
    min_size=1,
    max_size=4,
)


@given(approvals=GROUPS, names=st.permutations(["z1", "Ä", "0", "nan"]))
@settings(max_examples=80, deadline=None)
def test_verdicts_do_not_depend_on_what_groups_are_called(approvals: Approvals, names: list[str]):
    renamed = dict(zip(["a", "b", "c", "d"], names, strict=True))
    before = verdicts(impact(approvals))

    after = verdicts(impact({renamed[str(group)]: counts for group, counts in approvals.items()}))

    assert after == {renamed[group]: verdict for group, verdict in before.items()}


@given(approvals=GROUPS)
@settings(max_examples=80, deadline=None)
def test_an_attribute_passes_only_if_every_group_was_judged(approvals: Approvals):
    result = impact(approvals)
    judged = all(group.rows >= 250 for group in result.groups)

    assert result.verdict is not Verdict.PASS or judged
    assert all(group.verdict is not Verdict.PASS for group in result.groups if group.rows < 250)


def report_of(*results: AttributeResult) -> dict[str, object]:
    """A fairness report as it is read back from its file."""
    return json.loads(json.dumps({"attributes": [result.as_json() for result in results], "min_ratio": 0.8}))


def test_groups_that_cannot_be_judged_never_read_as_passed():
    result = impact({"north": (200, 150), "south": (100, 75), "east": (10, 10)})

    said = json.dumps(result.as_json())
    checked = four_fifths_holds(report_of(result))

    assert '"pass"' not in said
    assert result.as_json()["verdict"] == "insufficient_data"
    assert checked.description == "insufficient data: district=east, district=south"
    assert checked.metadata["insufficient_data"].value == "district=east, district=south"


def test_the_check_fails_for_a_gate_and_names_group_and_ratio():
    checked = four_fifths_holds(report_of(impact({"north": (300, 200), "south": (300, 100)})))

    assert not checked.passed
    assert checked.description == "district=south is approved at 0.50 of the reference rate"


def test_the_check_passes_for_a_report_with_the_same_numbers():
    assert four_fifths_holds(report_of(impact({"north": (300, 200), "south": (300, 100)}, use="report"))).passed


def test_a_book_without_protected_attributes_is_said_to_be_unmeasured():
    assert four_fifths_holds(report_of()).description == "not applicable: the book has no protected attribute"
