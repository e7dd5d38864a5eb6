"""Tests for `cde_domain.decisions.variants`: who is decided by the challenger."""

import math

from hypothesis import given
from hypothesis import strategies as st

from cde_domain.decisions.variants import Variant, assigned, place_of

CUSTOMERS = [f"customer-{number}" for number in range(4000)]

texts = st.text(min_size=1, max_size=40)
weights = st.floats(0, 1)


def challenged(experiment: str, weight: float) -> set[str]:
    return {customer for customer in CUSTOMERS if assigned(customer, experiment, weight) is Variant.CHALLENGER}


@given(texts, texts, weights, weights)
def test_a_growing_weight_takes_nobody_back_to_the_champion(customer: str, experiment: str, one: float, two: float):
    smaller, larger = sorted((one, two))
    if assigned(customer, experiment, smaller) is Variant.CHALLENGER:
        assert Variant.CHALLENGER is assigned(customer, experiment, larger)


@given(texts, texts)
def test_at_weight_none_the_champion_decides_for_everybody_and_at_one_the_challenger(customer: str, experiment: str):
    assert 0 <= place_of(customer, experiment) < 1
    assert Variant.CHAMPION is assigned(customer, experiment, 0.0)
    assert Variant.CHALLENGER is assigned(customer, experiment, 1.0)


@given(texts, weights)
def test_the_share_of_customers_is_the_weight(experiment: str, weight: float):
    """Within five standard errors of a binomial share."""
    share = len(challenged(experiment, weight)) / len(CUSTOMERS)
    assert abs(share - weight) <= 5 * math.sqrt(weight * (1 - weight) / len(CUSTOMERS)) + 1e-9


@given(texts, texts)
def test_one_experiment_says_nothing_about_the_next(one: str, other: str):
    """Of the challenger's customers in one, half are in the other's half, within five standard errors."""
    if one == other:
        return
    first, second = challenged(one, 0.5), challenged(other, 0.5)
    assert abs(len(first & second) / len(first) - 0.5) < 5 * math.sqrt(0.25 / len(first))


def test_a_customer_keeps_the_place_that_was_written_down():
    """Another hash would give running experiments other customers."""
    assert 0.355629 == round(place_of("customer-1", "autumn"), 6)
