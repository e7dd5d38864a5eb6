"""Leaks: a feature that gives away the outcome or a protected attribute is found."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cde_domain.features.feature import Feature
from cde_domain.features.table import features_that_give_away, single_feature_aucs


def plain(name: str, categories: tuple[str, ...] = ()) -> Feature:
    return Feature(name, lambda columns: columns[name], name, name, categories=categories)


def test_a_feature_that_knows_the_outcome_ranks_it_perfectly_whichever_way_round():
    repaid = np.arange(400) % 3 > 0
    noise = np.random.default_rng(0).random(400)
    table = pd.DataFrame(
        {
            "knows": repaid * 1.0,
            "reversed": -1.0 * repaid,
            "noise": noise,
            "by_category": repaid + 5.0,
            "repaid": repaid,
        }
    ).astype(float)
    features = (plain("knows"), plain("reversed"), plain("noise"), plain("by_category", tuple("abcdefg")))

    areas = single_feature_aucs(features, table)

    assert areas["knows"] == areas["reversed"] == areas["by_category"] == 1.0
    assert 0.5 <= areas["noise"] < 0.6


def test_categories_are_ranked_by_how_often_they_repay():
    category = np.repeat([0.0, 1.0, 2.0], 100)
    repaid = np.concatenate([np.arange(100) < 50, np.arange(100) < 99, np.arange(100) < 50]).astype(float)
    table = pd.DataFrame({"purpose": category, "repaid": repaid})

    as_category = single_feature_aucs((plain("purpose", tuple("abc")),), table)["purpose"]

    assert as_category > single_feature_aucs((plain("purpose"),), table)["purpose"] + 0.1


def test_young_loans_and_unknown_values_say_nothing_about_leaks():
    knows = np.concatenate([np.full(50, np.nan), np.tile([0.0, 1.0], 25), np.ones(10)])
    repaid = np.concatenate([np.tile([1.0, 0.0], 25), np.tile([0.0, 1.0], 25), np.full(10, np.nan)])
    rare = np.where(np.arange(110) < 20, repaid, np.nan)

    areas = single_feature_aucs(
        (plain("knows"), plain("rare")), pd.DataFrame({"knows": knows, "rare": rare, "repaid": repaid})
    )

    assert areas == {"knows": 1.0}


SEX = np.where(np.random.default_rng(8).random(600) < 0.4, "female", "male")
FEMALE = SEX == "female"
NOISE = np.random.default_rng(9)


def given_away(values: np.ndarray, *, categories: tuple[str, ...] = (), groups: Any = SEX) -> dict[str, float]:
    """By which attribute, and how well, a feature with these values gives it away."""
    book = pd.DataFrame({"protected.sex": pd.Series(groups, dtype="object")})
    table = pd.DataFrame({"suspect": values.astype(float)})
    found = features_that_give_away((plain("suspect", categories),), book, table)
    return {attribute: accuracy for (_, attribute), accuracy in found.items()}


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        pytest.param(FEMALE * 1.0, (), id="copy"),
        pytest.param(np.where(FEMALE, 17.5, 3.0), (), id="recoded"),
        pytest.param(-1.0 * FEMALE, (), id="reversed"),
        pytest.param(np.where(FEMALE, 1.0, np.where(NOISE.random(600) < 0.5, 0.0, 2.0)), (), id="middle value"),
        pytest.param(FEMALE + NOISE.uniform(-0.4, 0.4, 600), (), id="blurred"),
        pytest.param(FEMALE * 1.0, ("Mr", "Mrs"), id="category"),
        pytest.param(np.where(FEMALE, 1.0, NOISE.integers(0, 2, 600) * 2.0), ("Mr", "Mrs", "Dr"), id="categories"),
    ],
)
def test_a_feature_from_which_the_attribute_can_be_read_is_found(values: np.ndarray, categories: tuple[str, ...]):
    assert given_away(values, categories=categories) == pytest.approx({"sex": 1.0})


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        pytest.param(NOISE.normal(size=600), (), id="noise"),
        pytest.param(NOISE.integers(0, 3, 600), ("a", "b", "c"), id="random categories"),
        pytest.param(FEMALE + NOISE.normal(0, 1, 600), (), id="related, as income is"),
        pytest.param(np.full(600, np.nan), (), id="unknown"),
    ],
)
def test_a_feature_that_hardly_tells_the_attribute_is_not_accused(values: np.ndarray, categories: tuple[str, ...]):
    assert given_away(values, categories=categories) == {}


def test_a_nearly_perfect_copy_is_found():
    values = FEMALE * 1.0
    values[:6] = 1 - values[:6]

    assert 0.95 <= given_away(values)["sex"] < 1.0


def test_a_feature_that_gives_away_one_of_several_groups_is_found():
    caste = np.array(["a", "b", "c"])[np.arange(600) % 3]

    assert given_away((caste == "b") * 1.0, groups=caste) == {"sex": 1.0}


def test_a_handful_of_applicants_gives_nothing_away():
    rare = np.where(np.arange(600) < 29, "few", "many")

    assert given_away((rare == "few") * 1.0, groups=rare) == {}


def test_applicants_of_unknown_group_hide_no_copy():
    groups = [None if row % 5 == 0 else group for row, group in enumerate(SEX)]

    assert given_away(FEMALE * 1.0, groups=groups) == {"sex": 1.0}
