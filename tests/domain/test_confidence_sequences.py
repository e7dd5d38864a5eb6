"""Tests for intervals that hold however often one looks, and for how many customers an experiment needs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_domain.decisions.experiments.power import customers_to_clear, customers_to_detect, power_plan
from cde_domain.decisions.experiments.sequences import (
    Arm,
    Stratum,
    any_time_p_value,
    difference_sequence,
    log_evidence,
    log_evidence_of_difference,
    mean_sequence,
    pooled_difference,
)

RUNS = 250
FEW = settings(max_examples=25, deadline=None)

arms = st.integers(1, 2000).flatmap(
    lambda rows: st.builds(Arm, st.just(rows), st.floats(0, rows, allow_nan=False, width=32))
)


def alarms_while_looking(outcomes: np.ndarray, mean: float, alpha: float) -> float:
    """The share of runs of which some look, after any number of outcomes, is evidence against the true mean."""
    rows = np.arange(1, outcomes.shape[1] + 1)
    alarmed = 0
    for total in outcomes.cumsum(axis=1):
        alarmed += any(
            log_evidence(Arm(int(n), float(t)), mean) >= -math.log(alpha) for n, t in zip(rows, total, strict=True)
        )
    return alarmed / len(outcomes)


@pytest.mark.parametrize("mean", [0.02, 0.3, 0.6])
def test_looking_after_every_customer_errs_no_more_often_than_alpha(mean: float):
    """Ville's inequality, with its luck: three standard errors over alpha."""
    alpha = 0.1
    outcomes = np.random.default_rng(int(mean * 100)).random((RUNS, 400)) < mean

    alarmed = alarms_while_looking(outcomes, mean, alpha)

    assert alarmed <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / RUNS)


def test_it_holds_for_scores_as_for_yes_and_no():
    """Outcomes anywhere in [0, 1] are less extreme than yes and no with the same mean."""
    outcomes = np.random.default_rng(3).beta(2, 3, (RUNS, 300))

    assert alarms_while_looking(outcomes, 0.4, 0.1) <= 0.1


@pytest.mark.parametrize(("share", "drift"), [(0.05, 0.0), (0.5, 0.0), (0.5, 0.3)])
def test_an_equal_challenger_is_told_apart_no_more_often_than_alpha(share: float, drift: float):
    """At every of forty looks, also while the approval rate of both falls."""
    random, alpha, alarmed = np.random.default_rng(7), 0.1, 0
    for _ in range(RUNS):
        strata: list[Stratum] = []
        challenger, champion = np.zeros(2), np.zeros(2)
        for look in range(40):
            of_challenger = random.random(60) < share
            good = random.random(60) < 0.7 - drift * look / 40
            challenger += of_challenger.sum(), (good & of_challenger).sum()
            champion += (~of_challenger).sum(), (good & ~of_challenger).sum()
            strata = [Stratum(*(Arm(int(rows), float(total)) for rows, total in (challenger, champion)))]
            if (p := any_time_p_value(strata)) is not None and p <= alpha:
                alarmed += 1
                break

    assert alarmed / RUNS <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / RUNS)


def test_looking_at_an_ordinary_test_every_day_would_err_far_more_often():
    """The reason for all this: forty looks at a test made for one."""
    random, alarmed = np.random.default_rng(8), 0
    for _ in range(RUNS):
        good = random.random((2, 2400)) < 0.6
        for rows in range(60, 2401, 60):
            first, second = good[0, :rows].mean(), good[1, :rows].mean()
            pooled = (first + second) / 2
            if abs(first - second) > 1.645 * math.sqrt(2 * pooled * (1 - pooled) / rows):
                alarmed += 1
                break

    assert alarmed / RUNS > 0.3


def test_a_growing_share_while_the_population_changes_is_no_difference():
    """Simpson's paradox: approvals fall for all while the challenger's share grows, and strata see through it."""
    strata = [Stratum(Arm(100, 80), Arm(1900, 1520)), Stratum(Arm(1000, 500), Arm(1000, 500))]
    pooled = Stratum(Arm(1100, 580), Arm(2900, 2020))

    honest, misled = difference_sequence(strata, 0.05), difference_sequence([pooled], 0.05)

    assert honest is not None
    assert honest[0] < 0 < honest[1]
    assert misled is not None
    assert misled[1] < -0.05


@FEW
@given(st.lists(st.builds(Stratum, arms, arms), min_size=1, max_size=3), st.floats(0.001, 0.2))
def test_an_interval_lies_around_its_estimate_and_within_the_possible(strata: list[Stratum], alpha: float):
    interval = difference_sequence(strata, alpha)

    assert interval is not None
    assert -1 <= interval[0] <= interval[1] <= 1
    if len(strata) == 1:
        estimate = pooled_difference(strata)
        assert estimate is not None
        assert interval[0] - 1e-6 <= estimate <= interval[1] + 1e-6


@FEW
@given(arms, arms, st.floats(0.001, 0.2))
def test_less_tolerance_for_error_is_a_wider_interval(challenger: Arm, champion: Arm, alpha: float):
    strata = [Stratum(challenger, champion)]

    wide, narrow = difference_sequence(strata, alpha / 2), difference_sequence(strata, alpha)

    assert wide is not None
    assert narrow is not None
    assert wide[0] <= narrow[0] + 1e-6
    assert narrow[1] <= wide[1] + 1e-6


@FEW
@given(arms, arms)
def test_exchanging_the_variants_turns_the_interval_round(challenger: Arm, champion: Arm):
    there = difference_sequence([Stratum(challenger, champion)], 0.05)
    back = difference_sequence([Stratum(champion, challenger)], 0.05)

    assert there is not None
    assert back is not None
    assert there == pytest.approx((-back[1], -back[0]), abs=1e-6)


@FEW
@given(arms, arms)
def test_the_p_value_and_the_interval_say_the_same(challenger: Arm, champion: Arm):
    strata = [Stratum(challenger, champion)]
    interval = difference_sequence(strata, 0.05)

    assert interval is not None
    if abs(log_evidence_of_difference(strata, 0.0) + math.log(0.05)) > 1e-6:
        assert (any_time_p_value(strata) <= 0.05) == (not interval[0] <= 0 <= interval[1])


def test_nothing_is_said_before_both_variants_decided():
    assert difference_sequence([Stratum(Arm(0, 0), Arm(50, 20))], 0.05) is None
    assert any_time_p_value([Stratum(Arm(50, 20), Arm(0, 0))]) is None
    assert mean_sequence(Arm(0, 0), 0.05) == (0.0, 1.0)


def test_a_sequence_costs_less_than_twice_the_width_of_an_interval_for_one_look():
    """At 2,000 customers; that is the price of looking when one likes."""
    low, high = mean_sequence(Arm(2000, 1200), 0.05)

    assert high - low < 2 * (2 * 1.96 * math.sqrt(0.24 / 2000))


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_the_planned_number_finds_the_change_as_often_as_planned(share: float):
    """Simulated with the normal test that the plan is made for; three standard errors of luck."""
    customers = customers_to_detect(0.6, 0.1, share=share, alpha=0.05, power=0.8)
    random = np.random.default_rng(1)
    rows = np.array([round(customers * share), customers - round(customers * share)])
    good = random.binomial(rows, [0.5, 0.6], (4000, 2)) / rows
    pooled = good @ (rows / rows.sum())
    z = (good[:, 0] - good[:, 1]) / np.sqrt(pooled * (1 - pooled) * (1 / rows).sum())

    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.025)


def test_half_and_half_needs_the_fewest_customers():
    needed = [customers_to_detect(0.6, 0.1, share=share, alpha=0.05, power=0.8) for share in (0.05, 0.25, 0.5)]

    assert needed == sorted(needed, reverse=True)
    assert needed[2] == pytest.approx(776, abs=20)  # 388 a group, as the tables have it


def test_a_plan_also_says_when_harm_is_ruled_out():
    customers = customers_to_clear(0.6, 0.1, share=0.5, alpha=0.05)
    plan = power_plan(0.6, 0.1, share=0.5, alpha=0.05, power=0.8)

    assert customers == plan.to_clear
    assert customers is not None
    half = customers // 2
    interval = difference_sequence([Stratum(Arm(half, 0.6 * half), Arm(half, 0.6 * half))], 0.05)
    assert interval is not None
    assert interval == pytest.approx((-0.1, 0.1), abs=0.005)


def test_a_plan_without_a_second_variant_is_none():
    with pytest.raises(ValueError, match="between 0 and 1"):
        customers_to_detect(0.6, 0.1, share=1.0, alpha=0.05, power=0.8)
