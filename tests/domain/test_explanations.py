"""Reasons: true, stable, and what else says the same; LIME beside them."""

from dataclasses import replace

import numpy as np
import pytest

from cde_checks.governance import reasons_are_complete_and_faithful, reasons_are_stable, recourse_is_approved
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.governance.explanations import explanation_facts
from cde_domain.governance.faithfulness import faithfulness_facts
from cde_domain.governance.feature_groups import correlations, group_facts, groups_of
from cde_domain.governance.notices import Notices, Population, overlaps, strongest
from cde_domain.governance.reason_facts import explanation_facts as facts_of
from cde_domain.governance.stability import baseline_facts, rank_correlations, stability_facts
from cde_domain.training.lime_comparison import lime_facts, lime_weights


def applicants(rows: int, *, seed: int) -> np.ndarray:
    """Feature rows of the small portfolio within the ranges that its model saw."""
    random = np.random.default_rng(seed)
    income = random.lognormal(10.8, 0.4, rows)
    score = np.where(random.random(rows) < 0.1, np.nan, random.uniform(350, 880, rows))
    return np.column_stack(
        [
            income,
            random.uniform(0.05, 0.95, rows),
            score,
            random.uniform(100, 15_000, rows),
            random.integers(0, 3, rows),
        ]
    )


@pytest.fixture(scope="module")
def population(tiny_engine: DecisionEngine) -> Population:
    return Population.of(tiny_engine, applicants(800, seed=1))


@pytest.fixture(scope="module")
def notices(tiny_engine: DecisionEngine) -> Notices:
    return Notices.of(tiny_engine, applicants(900, seed=2))


def with_reasons(notices: Notices, reasons: tuple[tuple[int, ...], ...]) -> Notices:
    return replace(notices, reasons=reasons)


def test_notices_are_about_applications_that_the_model_did_not_approve(tiny_engine: DecisionEngine, notices: Notices):
    matrix = applicants(900, seed=2)

    assert len(notices) > 200
    for row, rejected, reasons in zip(notices.rows, notices.rejected, notices.reasons, strict=True):
        decision = tiny_engine.decide_features(matrix[row : row + 1])
        assert (decision.decision == "REJECTED", decision.decided_by) == (rejected, "model")
        if rejected:
            names = [tiny_engine.model.feature_names[reason].upper() for reason in reasons]
            assert [code.removesuffix("_UNKNOWN") for code in decision.reason_codes] == names


def test_the_strongest_reason_is_the_largest_shortfall_and_speaks_against():
    assert strongest(np.array([-0.2, -0.1, 0.3]), np.array([0.1, 0.5, 2.0])) == (1, 0)
    assert strongest(np.array([0.2, 0.1]), np.array([0.3, 0.0])) == (0,)


def test_reasons_overlap_by_those_in_both_over_those_in_either():
    assert overlaps([(1, 2, 3), (1,), ()], [(3, 2, 4), (2,), ()]).tolist() == [0.5, 0.0, 1.0]


def test_mending_the_reasons_raises_the_margin_and_more_than_mending_at_random(
    tiny_engine: DecisionEngine, population: Population, notices: Notices
):
    facts = faithfulness_facts(tiny_engine, population, notices)

    assert facts["repair_rate"] > 0.95
    assert facts["beats_random"] > 0.8
    assert facts["mean_gain"] > 1.5 * facts["mean_gain_of_random"] > 0
    assert facts["correlation"] > 0.7


def test_reasons_that_are_not_what_holds_an_applicant_back_are_found_out(
    tiny_engine: DecisionEngine, population: Population, notices: Notices
):
    best = tuple(
        tuple(np.argsort(-own)[: len(reasons)].tolist())
        for own, reasons in zip(notices.contributions, notices.reasons, strict=True)
    )

    facts = faithfulness_facts(tiny_engine, population, with_reasons(notices, best))

    assert facts["repair_rate"] < 0.8
    assert facts["beats_random"] < 0.3


def test_features_that_say_the_same_are_grouped_whatever_is_unknown(
    tiny_engine: DecisionEngine, population: Population, notices: Notices
):
    copied = population.matrix.copy()
    copied[:, 3] = (copied[:, 0] / 50_000) ** 12  # the order of incomes, in other numbers
    copied[::7, 3] = np.nan
    features, same = tiny_engine.portfolio.features, replace(population, matrix=copied)

    group = groups_of(correlations(features, same))
    facts = group_facts(features, same, with_reasons(notices, tuple((0, 1, 3) for _ in notices.reasons)))

    assert group[0] == group[3]
    assert len(set(group)) == 4
    assert [entry["features"] for entry in facts["groups"]] == [["annual_income", "total_balance"]]
    assert facts["notices_with_two_reasons_of_one_group"] == len(notices)


def test_unrelated_features_are_in_no_group(tiny_engine: DecisionEngine, population: Population, notices: Notices):
    facts = group_facts(tiny_engine.portfolio.features, population, notices)

    assert facts["groups"] == []
    assert facts["notices_with_two_reasons_of_one_group"] == 0


def test_reasons_barely_move_with_noise_or_with_others_who_just_passed(
    tiny_engine: DecisionEngine, population: Population, notices: Notices
):
    facts = stability_facts(tiny_engine, population, notices)

    assert facts["noise"]["top4_jaccard"] > 0.85
    assert facts["noise"]["rank_correlation"] > 0.9
    assert facts["baselines"]["top4_jaccard"] > 0.9
    low, high = facts["noise"]["top4_jaccard_interval"]
    assert low < facts["noise"]["top4_jaccard"] < high


def test_reasons_of_another_applicant_are_not_stable(
    tiny_engine: DecisionEngine, population: Population, notices: Notices
):
    mixed = with_reasons(notices, notices.reasons[1:] + notices.reasons[:1])

    facts = stability_facts(tiny_engine, population, mixed)

    assert facts["noise"]["top4_jaccard"] < 0.8


def test_the_two_baselines_are_named_with_their_sizes(
    tiny_engine: DecisionEngine, population: Population, notices: Notices
):
    facts = baseline_facts(tiny_engine, population, notices)

    assert facts["compared_rows"] == 800
    assert facts["stated_rows"] == len(population.passed)
    assert 0 < facts["same_first_reason"] <= 1
    assert 0 < facts["top4_jaccard"] <= 1


def test_rank_correlation_knows_the_same_order_the_reverse_and_no_order():
    one = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    other = np.array([[10.0, 20.0, 90.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])

    assert rank_correlations(one, other).tolist() == pytest.approx([1.0, -1.0, 1.0])


def test_lime_sees_the_sign_of_what_matters_and_fills_what_is_unknown(tiny_engine: DecisionEngine):
    matrix = applicants(400, seed=3)
    row = matrix[:1].copy()
    row[0, [0, 1, 2]] = 400_000, 0.95, np.nan  # very rich, and asks for much

    weights = lime_weights(
        tiny_engine.portfolio.features, lambda rows: rows[:, 0] / 50_000 - 3 * rows[:, 1], matrix, row, seeds=2
    )

    assert weights.shape == (2, 1, 5)
    assert (weights[:, 0, 0] > 0).all()
    assert (weights[:, 0, 1] < 0).all()
    assert np.abs(weights[:, 0, 2:]).max() < 0.2 * np.abs(weights[:, 0, :2]).min()


def test_lime_is_compared_with_the_contributions_and_with_itself():
    contributions = np.array([[-3.0, -2.0, -1.0, 0.0, 1.0]])
    weights = np.stack([contributions, -contributions])

    facts = lime_facts(weights, contributions, rank_correlations)

    assert facts["rank_correlation"] == pytest.approx(0.0)
    assert facts["own_rank_correlation"] == pytest.approx(-1.0)
    assert facts["own_top4_jaccard"] == pytest.approx(3 / 5)
    assert facts["same_first"] == 0.5


@pytest.fixture(scope="module")
def report(tiny_engine: DecisionEngine, notices: Notices) -> dict:
    facts = explanation_facts(tiny_engine, applicants(900, seed=2), applicants(800, seed=1), notices)
    lime = {"rows": 0, "rank_correlation": 0.5, "own_top4_jaccard": 0.8}
    return {**facts, "lime": lime, "recourse": {"declined": 4, "with_recourse": 3, "valid": 3}}


def test_true_and_stable_reasons_pass(report: dict):
    assert report["additivity_error"] < 1e-9
    assert reasons_are_complete_and_faithful(report).passed
    assert reasons_are_stable(report).passed
    assert recourse_is_approved(report).passed


def test_a_reason_that_speaks_for_the_applicant_stops_the_promotion(report: dict):
    favourable = {**report, "notices": {**report["notices"], "reasons_with_favourable_contribution": 2}}

    result = reasons_are_complete_and_faithful(favourable)

    assert (result.passed, result.description) == (False, "2 reasons speak for the applicant")


def test_reasons_that_do_not_help_when_mended_stop_the_promotion(report: dict):
    untrue = {**report, "faithfulness": {**report["faithfulness"], "repair_rate": 0.5}}

    result = reasons_are_complete_and_faithful(untrue)

    assert (result.passed, result.description) == (False, "mending the reasons helps only 50% of those not approved")


def test_unstable_reasons_and_broken_promises_are_told(report: dict):
    noise = {**report["stability"]["noise"], "top4_jaccard": 0.6}
    shaky = reasons_are_stable({**report, "stability": {**report["stability"], "noise": noise}})
    broken = recourse_is_approved({**report, "recourse": {"declined": 4, "with_recourse": 3, "valid": 2}})

    assert (shaky.passed, shaky.severity.value) == (False, "WARN")
    assert shaky.description == "reasons overlap under noise by 0.60, 0.8 is asked"
    assert (broken.passed, broken.description) == (False, "1 of 3 would not be approved")


def test_facts_about_reasons_have_intervals_and_few_notices_are_no_verdict(report: dict):
    facts = {fact.metric: fact for fact in facts_of(report, slope=1.0)}
    few = {fact.metric: fact for fact in facts_of({**report, "notices": {"rows": 12}}, slope=1.0)}

    for metric in (
        "share_where_fixing_reasons_beats_random_features",
        "faithfulness_correlation_mean",
        "top4_overlap_between_two_baselines",
        "top4_jaccard_across_10_backgrounds",
        "rank_corr_under_1pct_noise",
    ):
        value, interval = facts[metric].value, facts[metric].interval
        assert isinstance(value, float)
        assert interval is not None
        assert interval[0] <= value <= interval[1]
    assert few["top4_jaccard_across_10_backgrounds"].value is None
    assert not few["top4_jaccard_across_10_backgrounds"].sufficient


def test_a_model_that_turns_nobody_away_has_nothing_to_be_said_of_its_reasons(tiny_engine: DecisionEngine):
    nobody = Notices.of(tiny_engine, np.empty((0, 5)))
    facts = explanation_facts(tiny_engine, applicants(50, seed=1), applicants(50, seed=1), nobody)

    assert facts["notices"]["rows"] == 0
    assert facts["faithfulness"]["repair_rate"] is None
    assert reasons_are_stable({**facts, "lime": {"rows": 0}}).passed
    few = facts_of({**facts, "lime": {"rows": 0}}, slope=1.0)
    assert not any(fact.value for fact in few if fact.metric == "repair_rate")
