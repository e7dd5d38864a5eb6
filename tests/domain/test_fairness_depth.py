"""Fairness beyond the four-fifths rule: numbers by hand, agreement with fairlearn, and honest small groups."""

import numpy as np
import pandas as pd
import pytest

from cde_domain.features.feature import Feature
from cde_domain.governance.equal_opportunity import opportunity
from cde_domain.governance.fairness import Verdict
from cde_domain.governance.intersections import intersections
from cde_domain.governance.score_gaps import score_gaps
from cde_domain.intervals import absolute, holm, newcombe, wilson
from cde_domain.model.metrics import auc, auc_interval, calibration_slope
from cde_domain.training.proxies import proxy_screen


def _book(*counts: tuple[str, int, int, float]) -> tuple[pd.Series, np.ndarray, np.ndarray]:
    """Groups, approvals and outcomes from (group, rows, approved, repaid) blocks."""
    groups = pd.Series([group for group, rows, _, _ in counts for _ in range(rows)], dtype=object)
    approved = np.concatenate([np.arange(rows) < yes for _, rows, yes, _ in counts])
    return groups, approved, np.concatenate([np.full(rows, repaid) for _, rows, _, repaid in counts])


def test_wilson_and_newcombe_give_the_published_example() -> None:
    # Newcombe 1998, table II: 56/70 against 48/80
    assert wilson(56, 70) == pytest.approx((0.6918, 0.8769), abs=2e-3)
    assert newcombe(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_holm_multiplies_by_what_is_left_and_never_decreases() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_the_interval_of_an_absolute_value_starts_at_zero_where_the_sign_is_open() -> None:
    assert absolute((-0.02, 0.05)) == (0.0, 0.05)
    assert absolute((-0.05, -0.01)) == (0.01, 0.05)


def test_equal_opportunity_compares_only_those_who_repaid() -> None:
    result = opportunity(*_book(("a", 400, 300, 1.0), ("a", 400, 40, 0.0), ("b", 400, 240, 1.0), ("b", 400, 200, 0.0)))
    gap = result.equal_opportunity
    assert (gap.difference, gap.between, gap.sufficient) == (pytest.approx(0.15), ("b", "a"), True)
    assert gap.interval is not None
    assert 0.08 < gap.interval[0] < 0.15 < gap.interval[1] < 0.22
    assert result.equalized_odds.difference == pytest.approx(0.40)
    assert result.equalized_odds.among == "not repaid"


def test_the_gaps_agree_with_fairlearn() -> None:
    from fairlearn.metrics import MetricFrame, equal_opportunity_difference, equalized_odds_difference, selection_rate

    random = np.random.default_rng(3)
    groups = pd.Series(random.choice(["a", "b", "c"], 3000))
    repaid = (random.random(3000) < 0.7).astype(float)
    approved = random.random(3000) < 0.3 + 0.3 * repaid + 0.1 * (groups == "b").to_numpy()
    ours = opportunity(groups, approved, repaid)
    about = {"y_true": repaid.astype(int), "y_pred": approved.astype(int), "sensitive_features": groups}
    assert ours.equal_opportunity.difference == pytest.approx(equal_opportunity_difference(**about))
    assert ours.equalized_odds.difference == pytest.approx(equalized_odds_difference(**about))
    rates = MetricFrame(metrics=selection_rate, **about).by_group
    (pair,) = intersections({"one": groups, "same": groups}, approved, np.zeros(3000, dtype=bool), min_ratio=0.8)
    assert {cell.result.group: cell.result.approval_rate for cell in pair.cells} == pytest.approx(
        {f"{group} & {group}": rate for group, rate in rates.items()}
    )


def test_a_group_with_few_who_repaid_is_not_compared_and_never_sufficient() -> None:
    result = opportunity(*_book(("a", 400, 300, 1.0), ("b", 29, 0, 1.0)))
    assert result.equal_opportunity.difference is None
    assert result.equal_opportunity.sufficient is False
    assert [rate.rate for rate in result.rates if rate.group == "b"] == [None, None]


def test_many_groups_widen_the_interval_of_the_largest_gap() -> None:
    two = opportunity(*_book(("a", 300, 200, 1.0), ("b", 300, 180, 1.0))).equal_opportunity.interval
    more = opportunity(
        *_book(("a", 300, 200, 1.0), ("b", 300, 180, 1.0), ("c", 300, 190, 1.0), ("d", 300, 190, 1.0))
    ).equal_opportunity.interval
    assert two is not None
    assert more is not None
    assert more[0] < two[0] < two[1] < more[1]


def test_the_smd_and_the_calibration_gap_by_hand() -> None:
    groups = pd.Series(["a"] * 100 + ["b"] * 100)
    scores = np.concatenate([np.tile([0.5, 0.7], 50), np.tile([0.6, 0.8], 50)])
    repaid = np.concatenate([np.ones(60), np.zeros(40), np.ones(75), np.zeros(25)])
    first, second = score_gaps(groups, scores, repaid, reference="b")
    assert first.smd == pytest.approx(-0.1 / np.std([0.5, 0.7] * 50, ddof=1))
    assert second.smd is None
    assert first.calibration_gap == pytest.approx(0.0)
    assert second.calibration_gap == pytest.approx(-0.05)
    assert first.sufficient == ("smd",)


def test_the_auc_within_a_group_needs_thirty_loans_of_either_outcome() -> None:
    random = np.random.default_rng(0)
    scores = random.random(60)
    (few,) = score_gaps(pd.Series(["a"] * 60), scores, np.arange(60) >= 29, reference="a")
    (enough,) = score_gaps(pd.Series(["a"] * 60), scores, (np.arange(60) >= 30).astype(float), reference="a")
    assert few.auc is None
    assert enough.auc is not None


def test_delongs_interval_covers_like_the_bootstrap() -> None:
    from cde_domain.model.metrics import bootstrap_interval

    random = np.random.default_rng(1)
    scores = random.random(800)
    repaid = (random.random(800) < scores).astype(float)
    resampled = bootstrap_interval(lambda rows: auc(repaid[rows], scores[rows]), 800, draws=2000)
    assert auc_interval(repaid, scores) == pytest.approx(resampled, abs=0.006)


def test_the_calibration_slope_of_true_probabilities_is_one() -> None:
    random = np.random.default_rng(2)
    scores = 1 / (1 + np.exp(-random.normal(1, 1, 20_000)))
    repaid = (random.random(20_000) < scores).astype(float)
    slope, (low, high) = calibration_slope(repaid, scores)
    assert low < 1 < high
    assert slope == pytest.approx(1, abs=0.06)


def _crossed() -> tuple[dict[str, pd.Series], np.ndarray]:
    """Fair by each of two attributes, unfair where they meet, with one small cell and unknown values."""
    first = pd.Series(["x"] * 800 + ["y"] * 800 + ["x"] * 20 + [None] * 7)
    second = pd.Series((["p"] * 400 + ["q"] * 400) * 2 + ["r"] * 20 + ["p"] * 7)
    share = {("x", "p"): 0.8, ("x", "q"): 0.4, ("y", "p"): 0.4, ("y", "q"): 0.8}
    approved = np.array(
        [(i % 10) < 10 * share.get((a, b), 0.0) for i, (a, b) in enumerate(zip(first, second, strict=True))]
    )
    return {"first": first, "second": second}, approved


def test_a_model_fair_by_each_attribute_and_unfair_by_both_is_seen() -> None:
    attributes, approved = _crossed()
    (pair,) = intersections(attributes, approved, np.zeros(len(approved), dtype=bool), min_ratio=0.8)
    cells = {cell.result.group: cell for cell in pair.cells}
    assert cells["x & q"].verdict is Verdict.FAIL
    assert cells["x & q"].clearly_below
    assert cells["y & q"].verdict in (Verdict.REFERENCE, Verdict.PASS)


def test_small_cells_are_not_computed_and_unknown_values_are_counted() -> None:
    attributes, approved = _crossed()
    (pair,) = intersections(attributes, approved, np.zeros(len(approved), dtype=bool), min_ratio=0.8)
    cells = {cell.result.group: cell for cell in pair.cells}
    assert cells["x & r"].verdict is Verdict.NOT_COMPUTED
    assert cells["x & r"].result.approval_rate is None
    assert pair.unknown_rows == 7


def test_a_small_cell_that_fails_alone_is_insufficient_once_all_cells_are_counted() -> None:
    blocks = [("big", 500, 300)] + [(f"s{i}", 40, 17 if i == 0 else 24) for i in range(20)]
    groups, approved, _ = _book(*((name, rows, yes, 1.0) for name, rows, yes in blocks))
    constant = pd.Series(["all"] * len(groups))
    (pair,) = intersections(
        {"one": groups, "two": constant}, approved, np.zeros(len(groups), dtype=bool), min_ratio=0.8
    )
    cell = next(cell for cell in pair.cells if cell.result.group == "s0 & all")
    assert cell.result.p_value is not None
    assert cell.result.p_value < 0.05 < (cell.p_holm or 0)
    assert cell.result.verdict is Verdict.FAIL
    assert cell.verdict is Verdict.INSUFFICIENT_DATA


def test_a_large_cell_below_the_limit_fails_only_if_p_after_holm_says_so() -> None:
    blocks = [("big", 300, 60)] + [(f"s{i}", 300, 46 if i == 0 else 57) for i in range(10)]
    groups, approved, _ = _book(*((name, rows, yes, 1.0) for name, rows, yes in blocks))
    constant = pd.Series(["all"] * len(groups))
    (pair,) = intersections(
        {"one": groups, "two": constant}, approved, np.zeros(len(groups), dtype=bool), min_ratio=0.8
    )
    cell = next(cell for cell in pair.cells if cell.result.group == "s0 & all")
    assert cell.result.verdict is Verdict.FAIL
    assert (cell.p_holm or 0) > 0.05
    assert cell.verdict is Verdict.INSUFFICIENT_DATA


FEATURES = (
    Feature("district", lambda c: c["district"], "District", "District", categories=("n", "s", "w")),
    Feature("income", lambda c: c["income"], "Income", "Income"),
    Feature("noise", lambda c: c["noise"], "Noise", "Noise"),
)


def test_the_proxy_screen_finds_a_planted_proxy_and_nothing_where_nothing_is() -> None:
    random = np.random.default_rng(5)
    caste = pd.Series(random.choice(["one", "other"], 1500))
    planted = np.where(random.random(1500) < 0.8, (caste == "one").to_numpy(), random.random(1500) < 0.5).astype(float)
    matrix = np.column_stack([planted, random.normal(size=1500), random.normal(size=1500)])
    gender = pd.Series(random.choice(["f", "m"], 1500)).mask(random.random(1500) < 0.1)
    found = {result.attribute: result for result in proxy_screen(FEATURES, matrix, {"caste": caste, "gender": gender})}
    assert found["caste"].feature == "district"
    assert found["caste"].auc is not None
    assert found["caste"].auc > 0.85
    assert found["gender"].interval is not None
    assert found["gender"].interval[0] < 0.5 < found["gender"].interval[1] + 0.05
    assert found["gender"].rows < 1500


def test_the_proxy_screen_sees_what_two_features_tell_better_together() -> None:
    random = np.random.default_rng(6)
    income, noise = random.normal(size=1500), random.normal(size=1500)
    group = pd.Series(np.where(income - noise > 0, "a", "b"))
    matrix = np.column_stack([np.zeros(1500), income, noise])
    (result,) = proxy_screen(FEATURES, matrix, {"group": group})
    assert result.auc is not None
    assert result.feature_auc is not None
    assert result.auc > 0.95 > 0.87 > result.feature_auc


def test_a_group_under_thirty_is_not_screened() -> None:
    random = np.random.default_rng(7)
    group = pd.Series(["a"] * 20 + ["b"] * 300)
    (result,) = proxy_screen(FEATURES, random.normal(size=(320, 3)) ** 2 // 10, {"group": group})
    assert (result.group, result.members, result.auc) == ("a", 20, None)
