"""Drift: an alarm for what changed, and none for what chance does to few decisions."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.monitoring.drift import (
    Watched,
    approval_alarms,
    drift_alarms,
    feature_references,
    psi_by_chance,
    shifts,
    watched,
)
from cde_domain.decisions.monitoring.reference import Reference, decision_codes
from cde_domain.decisions.policy import Outcome
from cde_domain.model.metrics import PsiReference
from cde_domain.portfolio import Alarms, PortfolioError
from tests.support import training_rows

ALARMS = Alarms(false_alarm_rate=0.05)
TRAINED_ON = 8_000


def population(random: np.random.Generator, rows: int) -> np.ndarray:
    """Skewed, tied, whole-numbered, rare and partly unknown features, as credit files have them."""
    debt = np.where(random.random(rows) < 0.15, 0.0, random.exponential(1, rows))
    file_age = np.where(random.random(rows) < 0.02, np.nan, random.gamma(2, 4, rows))
    columns = (
        random.normal(size=rows),
        random.lognormal(size=rows),
        debt,
        random.poisson(1.5, rows).astype(float),
        (random.random(rows) < 0.04).astype(float),
        random.choice(11, rows, p=np.array([30, 20, 15, 10, 8, 6, 4, 3, 2, 1, 1]) / 100).astype(float),
        file_age,
    )
    return np.column_stack(columns)


@pytest.fixture(scope="module")
def references() -> list[PsiReference]:
    return [PsiReference.of(values) for values in population(np.random.default_rng(1), TRAINED_ON).T]


def report(references: list[PsiReference], matrix: np.ndarray, alarms: Alarms = ALARMS) -> list[str]:
    things = [
        Watched(f"f{place}", "feature", reference, values)
        for place, (reference, values) in enumerate(zip(references, matrix.T, strict=True))
    ]
    return [shift.name for shift in shifts(things, alarms) if shift.drifted]


def test_200_applicants_of_the_same_population_alarm_no_more_often_than_stated(references: list[PsiReference]):
    random = np.random.default_rng(2)

    alarms = sum(bool(report(references, population(random, 200))) for _ in range(400))

    assert alarms <= 0.05 * 400


def test_half_a_standard_deviation_is_caught_within_500_applicants(references: list[PsiReference]):
    random = np.random.default_rng(3)
    caught = 0
    for _ in range(50):
        matrix = population(random, 500)
        matrix[:, 0] += 0.5
        caught += "f0" in report(references, matrix, Alarms())

    assert caught >= 49


def test_very_many_applicants_who_differ_by_next_to_nothing_raise_no_alarm(references: list[PsiReference]):
    matrix = population(np.random.default_rng(4), 300_000)
    matrix[:, 0] += 0.05

    assert report(references, matrix) == []


def test_a_rare_flag_that_becomes_common_is_seen(references: list[PsiReference]):
    random = np.random.default_rng(5)
    matrix = population(random, 500)
    matrix[:, 4] = random.random(500) < 0.25

    assert report(references, matrix) == ["f4"]


def test_a_category_that_takes_anothers_place_is_seen():
    kinds = np.repeat([0.0, 1.0, 2.0], [820, 90, 90])
    swapped = np.where(kinds == 1, 2.0, kinds)

    (shift,) = shifts([Watched("purpose", "feature", PsiReference.of(kinds), swapped)], ALARMS)

    assert shift.drifted


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([0.0], [1.0]),
        ([1.0], [0.0]),
        ([3.0], [1e9]),
        ([0.0, 0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0, 3.0]),
        ([0.0, 2.0], [1.0, 2.0]),
        ([0.0] * 9 + [1.0], [0.0] * 9 + [0.5]),
    ],
)
def test_a_value_that_training_never_saw_in_a_feature_of_few_is_seen(before: list[float], after: list[float]):
    reference = PsiReference.of(np.resize(before, 3_000))

    (shift,) = shifts([Watched("flag", "feature", reference, np.resize(after, 500))], Alarms())

    assert shift.drifted


def test_a_new_value_of_a_feature_of_many_is_ordinary():
    ages, others = np.arange(20.0, 70.0, 2.0), np.arange(21.0, 71.0, 2.0)

    (shift,) = shifts(
        [Watched("age", "feature", PsiReference.of(np.resize(ages, 3_000)), np.resize(others, 500))], ALARMS
    )

    assert not shift.drifted


def test_the_long_tail_of_a_count_alarms_no_more_often_than_stated():
    random, alarms = np.random.default_rng(12), Alarms(false_alarm_rate=0.02, min_psi=1e-9)
    shares = 1 / np.arange(1, 31) ** 2.5
    raised = 0
    for _ in range(25):
        seen, *others = random.choice(30, (41, 200), p=shares / shares.sum()).astype(float)
        things = [Watched("delinquencies", "feature", PsiReference.of(seen), values) for values in others]
        raised += sum(shifts([thing], alarms)[0].drifted for thing in things)

    assert raised <= 0.02 * 1_000


def test_a_reference_from_before_new_values_had_a_bin_is_read_and_measures_as_it_did():
    kinds = np.repeat([0.0, 1.0, 2.0], [820, 90, 90])
    reference = Reference.of("holdout", np.resize([1.0, 0.0], 1_000), kinds, np.full(1_000, "REJECTED"), kinds / 3)
    stored = reference.as_json()
    for name in ("scores", "decisions"):
        del stored[name]["by_value"]

    before, now = Reference.from_json(stored), Reference.from_json(reference.as_json())

    new_kind = np.where(kinds == 2, 3.0, kinds)
    assert before.scores.psi(kinds) == now.scores.psi(kinds) == 0.0
    assert before.scores.psi(new_kind) == 0.0
    assert now.scores.psi(new_kind) > 0.5


def test_a_value_that_goes_missing_is_drift(references: list[PsiReference]):
    random = np.random.default_rng(6)
    matrix = population(random, 500)
    matrix[random.random(500) < 0.2, 6] = np.nan

    assert report(references, matrix) == ["f6"]


def test_the_limit_falls_with_more_decisions_and_rises_with_a_smaller_training_set():
    random = np.random.default_rng(7)
    large, small = (PsiReference.of(random.normal(size=rows)) for rows in (20_000, 400))
    limits = [psi_by_chance(large, rows, 0.001) for rows in (100, 200, 1_000, 10_000)]

    assert limits == sorted(limits, reverse=True)
    assert psi_by_chance(small, 200, 0.001) > 1.2 * psi_by_chance(large, 200, 0.001)


def test_a_rarer_false_alarm_asks_for_a_larger_index():
    reference = PsiReference.of(np.random.default_rng(8).normal(size=5_000))
    limits = [psi_by_chance(reference, 300, level) for level in (0.01, 0.001, 0.0002, 0.00005)]

    assert limits == sorted(limits)
    assert limits[3] < 1.5 * limits[2]


def test_the_limit_is_what_chi_squared_says_where_that_holds():
    from scipy.stats import chi2

    rows, level = 20_000, 0.01
    reference = PsiReference.of(np.random.default_rng(9).normal(size=rows))

    assert psi_by_chance(reference, rows, level) == pytest.approx(chi2.isf(level, 9) * 2 / rows, rel=0.05)


def test_an_alarm_names_the_feature_and_its_limit(references: list[PsiReference]):
    values = population(np.random.default_rng(1), 500)[:, 0] + 2
    (alarm,) = drift_alarms(shifts([Watched("income", "feature", references[0], values)], ALARMS))

    assert alarm.what == "drift_income"
    assert "the feature income has drifted: over 500 decisions" in alarm.said
    assert alarm.retrains


def test_the_model_brings_the_reference_of_its_features_and_the_evaluation_that_of_scores(tiny_engine: DecisionEngine):
    matrix, repaid = training_rows(1)
    scores = tiny_engine.model.scores(matrix)
    decisions = np.array([tiny_engine.policy.by_score(score).value for score in scores])
    reference = Reference.of("holdout", repaid, scores, decisions, scores)

    found = {shift.name: shift for shift in shifts(watched(tiny_engine.model, matrix, reference, decisions), ALARMS)}

    assert [*found] == [*tiny_engine.model.feature_names, "score", "decision"]
    assert not any(shift.drifted for shift in found.values())
    assert {shift.psi for shift in found.values()} == {0.0}
    assert found["bureau_score"].reference_rows == len(matrix)


def test_a_model_remembers_which_of_its_features_had_few_values(tiny_engine: DecisionEngine):
    flag = asdict(PsiReference.of(np.zeros(900)))
    unmarked = {name: value for name, value in flag.items() if name != "by_value"}
    model = replace(tiny_engine.model, feature_references=(flag, unmarked))

    assert [one.by_value for one in feature_references(model)] == [True, False]


def test_another_mix_of_decisions_is_drift_of_its_own():
    decisions = np.array([Outcome.APPROVED.value] * 700 + [Outcome.REJECTED.value] * 300)
    reference = PsiReference.of(decision_codes(decisions))
    stopped = decision_codes(np.array([Outcome.MANUAL_REVIEW.value] * 200))

    (shift,) = shifts([Watched("decision", "decisions", reference, stopped)], ALARMS)

    assert shift.drifted
    assert not drift_alarms([shift])[0].retrains


def test_a_reference_survives_the_evidence():
    matrix, repaid = training_rows(2)
    scores = np.clip(matrix[:, 1], 0.01, 0.99)
    reference = Reference.of("holdout", repaid, scores, np.full(len(scores), Outcome.APPROVED.value), scores)

    assert Reference.from_json(reference.as_json()) == reference


def test_scores_that_are_all_one_have_a_reference_without_calibration():
    reference = Reference.of(
        "holdout", np.array([1.0, 0.0] * 9), np.full(18, 0.5), np.full(18, "REJECTED"), np.zeros(0)
    )

    assert reference.calibration is None
    assert (reference.approved, reference.auc) == (0, 0.5)


def approvals(approved: int, rows: int, before: float, alarms: Alarms | None = None) -> list[str]:
    reference = Reference.of(
        "holdout",
        np.array([1.0, 0.0] * 500),
        np.linspace(0.01, 0.99, 1000),
        np.where(np.arange(1000) < 1000 * before, Outcome.APPROVED.value, Outcome.REJECTED.value),
        np.linspace(0.01, 0.99, 1000),
    )
    return [one.what for one in approval_alarms(approved, rows, reference, alarms or Alarms())]


@pytest.mark.parametrize(
    ("approved", "rows", "raised"),
    [
        (600, 1000, []),
        (65, 100, []),
        (80, 100, []),  # more than 15 points cannot be told from chance
        (800, 1000, ["approval_rate_change"]),
        (1000, 1000, ["approval_rate_high", "approval_rate_change"]),
        (2, 1000, ["approval_rate_low", "approval_rate_change"]),
    ],
)
def test_the_share_approved_has_bounds_that_only_more_than_chance_crosses(approved: int, rows: int, raised: list[str]):
    assert approvals(approved, rows, before=0.6) == raised


def test_a_portfolio_may_let_the_share_approved_move():
    assert approvals(800, 1000, before=0.6, alarms=Alarms(max_approval_rate_change=None)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_auc": 1.2},
        {"max_auc_drop": 0.0},
        {"false_alarm_rate": 0.5},
        {"min_approval_rate": 0.99},
        {"window_days": 0},
        {"retrain_cooldown_days": -1},
        {"min_adverse_impact_ratio": 0.0},
        {"max_approval_rate_change": 2.0},
    ],
)
def test_an_alarm_number_that_makes_no_sense_is_refused_by_name(wrong: dict[str, float]):
    with pytest.raises(PortfolioError, match=next(iter(wrong))):
        replace(Alarms(), **wrong)
