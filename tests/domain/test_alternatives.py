"""The search for less discriminatory models: found where there is one, refuted where none is, open where unsure."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cde_domain.decisions.policy import Policy
from cde_domain.features.feature import Feature
from cde_domain.governance.alternatives import (
    ComparedGroup,
    Finding,
    Tolerances,
    approve_as_many,
    compared_groups,
    findings,
    judge,
    overall,
    pareto_front,
    standard_errors,
)
from cde_domain.model.compilation import compile_trees
from cde_domain.training.alternatives.book import Book
from cde_domain.training.alternatives.search import SearchError, search_alternatives
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.candidates.cross_validation import cross_validate
from cde_domain.training.challenger import folds_of
from cde_domain.training.reductions import CONSTRAINTS, Reductions

FEATURES = (
    Feature("income", lambda c: c["income"], "Income", "Income is low", monotone=1),
    Feature("debt", lambda c: c["debt"], "Debt", "Debts are high", monotone=-1),
    Feature("district", lambda c: c["district"], "District", "The district"),
    Feature("accounts", lambda c: c["accounts"], "Accounts", "Few accounts"),
)
ROWS = 2_000
POLICY = Policy(version="1", approve_at=0.6, review_at=0.3)
LEARNER = BoostingSettings(rounds=25, max_depth=3, learning_rate=0.15, seed=3)
TOLERANCES = Tolerances(auc=0.01, gain=0.05)


def _book(*, proxy: float, rows: int = ROWS, rare: float = 0.5) -> Book:
    """
    Loans that income and debt decide, and a district that says less about repayment than about the group.

    With `proxy` 0 neither the district nor repayment has to do with the group.
    """
    random = np.random.default_rng(1)
    group = random.random(rows) < rare
    income, debt = random.normal(size=rows), random.normal(size=rows)
    hidden = random.normal(size=rows) - proxy * group
    district = hidden + 0.3 * random.normal(size=rows)
    margin = 0.5 + 2.0 * income - 2.0 * debt + (0.25 * hidden if proxy else 0.0)
    repaid = (random.random(rows) < 1 / (1 + np.exp(-margin))).astype(float)
    matrix = np.column_stack([income, debt, district, random.integers(0, 9, rows).astype(float)])
    groups = pd.Series(np.where(group, "a", "b"), dtype=object)
    return Book(FEATURES, matrix, repaid, np.arange(rows) // 2, {"origin": groups})


def _search(book: Book, policy: Policy = POLICY, **changes):
    arguments = {"boosting": {}, "candidates": 24, "tolerances": TOLERANCES, **changes}
    return search_alternatives(book, LEARNER, policy, **arguments)


@pytest.fixture(scope="module")
def unfair():
    return _search(_book(proxy=2.5))


@pytest.fixture(scope="module")
def fair():
    return _search(_book(proxy=0.0))


def test_a_model_without_the_proxy_is_found_where_one_was_planted(unfair):
    report = unfair.as_json()

    assert report["finding"] == "found"
    assert "without district" in report["found"]
    found = next(candidate for candidate in report["candidates"] if candidate["name"] == "without district")
    assert found["within_tolerance"]
    assert found["impact_ratio"] > report["challenger"]["impact_ratio"] + TOLERANCES.gain
    assert found["helps"] == ["origin=a"]
    assert found["adopt"] == "take district out of the portfolio's features"


def test_an_alternative_that_settings_can_adopt_is_named_before_a_reduction(unfair):
    report = unfair.as_json()

    adoptable = {candidate["name"]: candidate["adoptable"] for candidate in report["candidates"]}
    order = [adoptable[name] for name in report["found"]]
    assert order == sorted(order, reverse=True)
    assert order[0]


def test_no_alternative_is_found_where_the_groups_do_not_differ(fair):
    report = fair.as_json()

    assert (report["finding"], report["found"]) == ("refuted", [])
    assert [group["finding"] for group in report["groups"]] == ["refuted"]


def test_a_stronger_reduction_approves_more_of_the_group_it_works_for(unfair):
    (group,) = unfair.groups
    rates = {
        candidate.strength: approved[group.member].mean()
        for candidate, approved in zip(unfair.candidates, unfair.approvals[1:], strict=True)
        if candidate.reduction and candidate.reduction.constraint == "demographic parity"
    }

    assert unfair.approvals[0][group.member].mean() < rates[0.15] < rates[0.3] < rates[0.6]


def test_every_kind_of_candidate_is_among_those_that_were_asked_for(unfair):
    families = [candidate.family for candidate in unfair.candidates]

    assert len(families) >= 24
    assert len({candidate.name for candidate in unfair.candidates}) == len(families)
    assert {family: families.count(family) >= 6 for family in set(families)} == {
        "reduction": True,
        "settings": True,
        "features": True,
    }


def test_a_book_of_two_features_still_has_as_many_candidates_as_were_asked_for():
    book = _book(proxy=2.5, rows=800)
    two = Book(FEATURES[:2], np.ascontiguousarray(book.matrix[:, :2]), book.repaid, book.customers, book.attributes)

    report = _search(two, candidates=30).as_json()

    assert report["n_candidates"] == 30
    json.dumps(report, allow_nan=False)


def test_an_attribute_that_is_only_reported_is_searched_and_changes_nothing_else():
    book = _book(proxy=2.5)
    coin = {"coin": pd.Series(np.random.default_rng(4).choice(["heads", "tails"], len(book.repaid)))}

    alone = _search(dataclasses.replace(book, attributes=coin)).as_json()
    beside = _search(dataclasses.replace(book, attributes=coin, reported=book.attributes), most_rows=1_999).as_json()
    both = _search(dataclasses.replace(book, attributes=coin, reported=book.attributes)).as_json()

    assert {group["attribute"] for group in both["reported_groups"]} == {"origin"}
    assert "found" in {group["finding"] for group in both["reported_groups"]}
    assert (beside["rows"], bool(beside["reported_groups"])) == (1_999, True)
    assert alone["reported_groups"] == []
    assert both["found"] == alone["found"] == []
    assert {**both, "reported_groups": []} == alone


def test_every_candidate_that_is_judged_approves_as_many_as_the_challenger(unfair):
    counts = unfair.approvals.sum(axis=1)
    judged = [count for count, judged in zip(counts[1:], unfair.judged, strict=True) if judged.within_tolerance]

    assert len(judged) > 8
    assert np.abs(np.array(judged) - counts[0]).max() <= 0.01 * counts[0]


def test_a_model_that_can_only_approve_many_more_is_not_compared():
    attributes, customers = _groups(1000, 1000)
    challenger, everyone = _approve(2000, (0, 400), (1000, 600)), _approve(2000, (0, 2000))

    judged, _ = _judge(attributes, customers, challenger, everyone)

    assert not judged[0].within_tolerance


def test_candidates_meet_the_folds_and_the_scores_of_the_challenger(unfair):
    book = _book(proxy=2.5)
    fold = folds_of(book.repaid, book.customers, seed=LEARNER.seed)
    alone = cross_validate(LEARNER, book.features, book.matrix, book.repaid, fold)

    assert np.array_equal(unfair.tried[0].scores, alone.scores)


def test_the_same_search_gives_the_same_answer_to_the_bit():
    first, second = (json.dumps(_search(_book(proxy=2.5, rows=600), candidates=20).as_json()) for _ in range(2))

    assert first == second


def test_progress_is_told_candidate_by_candidate():
    told: list[str] = []
    _search(_book(proxy=0.0, rows=800), candidates=20, tell=told.append)

    assert told[0].startswith("candidate 1 of 20: ")
    assert len(told) == 20


def test_a_large_book_is_sampled_in_its_proportion_of_good_and_bad_loans():
    book = _book(proxy=0.0)
    sample = book.sample(600, seed=0)

    assert len(sample.repaid) == 600
    assert sample.repaid.mean() == pytest.approx(book.repaid.mean(), abs=0.002)
    report = _search(book, most_rows=900, candidates=20).as_json()
    assert (report["rows"], report["rows_available"]) == (900, ROWS)


def test_too_few_people_are_neither_a_finding_nor_a_refutation():
    few = _search(_book(proxy=0.0, rows=700, rare=0.2), candidates=20)
    fewer = _search(_book(proxy=0.0, rows=700, rare=0.02), candidates=20)

    assert few.finding is Finding.INSUFFICIENT_DATA
    assert [found.why for found in fewer.findings if found.group == "a"] == ["too few to compute"]
    assert fewer.finding is Finding.INSUFFICIENT_DATA
    json.dumps(fewer.as_json(), allow_nan=False)


def test_a_feature_that_a_rule_of_the_policy_needs_is_not_left_out():
    rule = {"code": "D", "when": {"feature": "district", "below": -9.0}, "decision": "REJECTED", "reason": "far"}
    policy = Policy.model_validate({"version": "1", "approve_at": 0.6, "review_at": 0.3, "rules": [rule]})
    search = _search(_book(proxy=2.5, rows=800), policy, candidates=20)

    assert not any("district" in candidate.without for candidate in search.candidates)


def test_a_challenger_that_approves_nobody_cannot_be_compared():
    with pytest.raises(SearchError, match=r"nobody is approved at 0\.999"):
        _search(_book(proxy=0.0, rows=800), Policy(version="1", approve_at=0.999, review_at=0.3))


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_reduction_is_one_deterministic_model_that_is_served_like_any_other(constraint):
    book = _book(proxy=2.5)
    member = (book.attributes["origin"] == "a").to_numpy()
    matrix = book.matrix.copy()
    matrix[::7, 2] = np.nan
    reduction = Reductions(constraint, (0.3, 0.9), LEARNER)

    first, second = (reduction.fit(FEATURES, matrix, book.repaid, member) for _ in range(2))

    for one, again in zip(first, second, strict=True):
        served = compile_trees(one.ensemble())
        assert np.array_equal(one.margins(matrix), again.margins(matrix))
        assert served.margins(matrix) == pytest.approx(one.margins(matrix), abs=1e-4)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_below_full_strength_no_outcome_is_relabelled(constraint, monkeypatch):
    book = _book(proxy=2.5)
    member = (book.attributes["origin"] == "a").to_numpy()
    seen = []
    from cde_domain.training import reductions

    real = reductions.fit

    def watched(features, matrix, repaid, settings, *, weights):
        seen.append((np.array_equal(repaid, book.repaid), weights))
        return real(features, matrix, repaid, settings, weights=weights)

    monkeypatch.setattr(reductions, "fit", watched)
    Reductions(constraint, (0.3, 0.99), LEARNER).fit(FEATURES, book.matrix, book.repaid, member)

    assert [same for same, _ in seen] == [True, True]
    light, heavy = (weights for _, weights in seen)
    assert light.min() >= 0.7 - 1e-9
    assert 0 < heavy.min() < light.min()


# ---- the rule, on approvals made by hand ----


def _groups(*sizes: int) -> tuple[dict[str, pd.Series], np.ndarray]:
    names = [chr(ord("a") + place) for place, size in enumerate(sizes) for _ in range(size)]
    return {"origin": pd.Series(names, dtype=object)}, np.arange(len(names))


def _approve(rows: int, *parts: tuple[int, int]) -> np.ndarray:
    approved = np.zeros(rows, dtype=bool)
    for start, count in parts:
        approved[start : start + count] = True
    return approved


def _judge(attributes, customers, challenger, *others, differences=None, tolerances=TOLERANCES):
    groups = compared_groups(attributes, challenger)
    names = [f"candidate {place}" for place in range(len(others))]
    approvals = np.stack([challenger, *others])
    judged = judge(names, differences or [0.0] * len(others), groups, approvals, customers, tolerances)
    return judged, findings(attributes, groups, challenger, judged, tolerances)


def test_a_clear_gain_within_the_tolerance_is_found_and_one_beyond_it_is_not():
    attributes, customers = _groups(1000, 1000)
    challenger, fairer = _approve(2000, (0, 400), (1000, 600)), _approve(2000, (0, 500), (1000, 500))

    inside, found = _judge(attributes, customers, challenger, fairer, differences=[-0.01])
    beyond, not_found = _judge(attributes, customers, challenger, fairer, differences=[-0.0101])

    assert (inside[0].helps, found[0].finding) == (("origin=a",), Finding.FOUND)
    assert (beyond[0].helps, not_found[0].finding) == ((), Finding.REFUTED)
    assert "no candidate without harm" in not_found[0].why


def test_a_gain_for_one_group_that_another_pays_for_is_no_alternative():
    attributes, customers = _groups(1000, 1000, 1000)
    challenger = _approve(3000, (0, 500), (1000, 600), (2000, 580))
    at_anothers_cost = _approve(3000, (0, 580), (1000, 600), (2000, 500))

    judged, found = _judge(attributes, customers, challenger, at_anothers_cost)

    assert {gain.group: gain.gain > 0 for gain in judged[0].gains} == {"a": True, "c": False}
    assert judged[0].helps == ()
    assert overall(found) is Finding.REFUTED


def test_a_disadvantage_turned_round_is_no_gain():
    attributes, customers = _groups(1000, 1000)
    judged, _ = _judge(
        attributes, customers, _approve(2000, (0, 400), (1000, 600)), _approve(2000, (0, 600), (1000, 400))
    )

    assert judged[0].gains[0].gain == pytest.approx(0.0)


def test_a_gain_that_may_be_chance_leaves_the_search_open():
    attributes, customers = _groups(300, 300)
    challenger = _approve(600, (0, 120), (300, 150))
    perhaps = _approve(600, (40, 125), (330, 145))

    _, found = _judge(attributes, customers, challenger, perhaps)

    assert found[0].finding is Finding.INSUFFICIENT_DATA
    assert "which may be chance" in found[0].why


def test_applications_of_one_customer_are_drawn_together():
    attributes, customers = _groups(1000, 1000)
    challenger, fairer = _approve(2000, (0, 400), (1000, 600)), _approve(2000, (0, 450), (1000, 550))
    groups = compared_groups(attributes, challenger)
    approvals = np.stack([challenger, fairer])

    alone = standard_errors(groups, approvals, customers)
    in_tens = standard_errors(groups, approvals, customers // 10)

    assert in_tens[0, 0] > 2 * alone[0, 0]


def test_the_bootstrap_error_agrees_with_the_delta_method():
    attributes, customers = _groups(2000, 2000)
    challenger, fairer = _approve(4000, (0, 800), (2000, 1200)), _approve(4000, (0, 900), (2000, 1200))
    groups = compared_groups(attributes, challenger)
    error = standard_errors(groups, np.stack([challenger, fairer]), customers)[0, 0]

    # Gain = newly approved share (5 %) over the reference's rate (60 %); both vary independently.
    gain, reference = 0.05, 0.6
    variance = gain * (1 - gain) / 2000 / reference**2 + gain**2 * reference * (1 - reference) / 2000 / reference**4
    assert error == pytest.approx(np.sqrt(variance), rel=0.1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.data())
def test_the_best_are_approved_and_equal_scores_are_treated_alike(scores, data):
    values = np.round(scores, 1)
    count = data.draw(st.integers(1, len(values)))

    approved, cut_off = approve_as_many(values, np.ones(len(values), dtype=bool), count)

    assert np.array_equal(approved, values >= cut_off)
    nearest = min(abs(int((values >= cut).sum()) - count) for cut in values)
    assert abs(int(approved.sum()) - count) == nearest


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_nothing_on_the_front_is_beaten_and_everything_else_is(points):
    front = pareto_front(points)

    assert any(front)
    for point, on_front in zip(points, front, strict=True):
        beaten = any(o[0] >= point[0] and o[1] >= point[1] and o != point for o in points)
        assert on_front is not beaten


def test_the_ratio_of_a_group_is_its_approval_rate_over_the_references():
    everyone = np.ones(4, dtype=bool)
    group = ComparedGroup("origin", "a", "b", np.array([1, 1, 0, 0], bool), np.array([0, 0, 1, 1], bool))

    assert group.ratio(everyone) == 1.0
    assert group.ratio(np.array([1, 0, 1, 1], bool)) == 0.5
    assert group.ratio(~everyone) == 1.0
