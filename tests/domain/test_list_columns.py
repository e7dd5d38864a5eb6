"""Lists in an application: what is unknown stays unknown, and one row has the bits of many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_domain.features.columns import Nested


def nested(*lists: list[float] | None) -> Nested:
    """One list of amounts a row; None is an absent list."""
    lengths = [len(items or []) for items in lists]
    return Nested(
        fields={"amount": np.array([item for items in lists for item in items or []], dtype=np.float64)},
        categories={"amount": ()},
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        known=np.array([items is not None for items in lists]),
    )


REDUCTIONS = {
    "count": lambda lists: lists.count(),
    "sum": lambda lists: lists.sum(lists["amount"]),
    "mean": lambda lists: lists.mean(lists["amount"]),
    "deviation": lambda lists: lists.deviation(lists["amount"]),
    "minimum": lambda lists: lists.minimum(lists["amount"]),
    "maximum": lambda lists: lists.maximum(lists["amount"]),
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_an_absent_list_is_unknown(reduction: str):
    assert np.isnan(REDUCTIONS[reduction](nested(None, [1.0], None))[[0, 2]]).all()


@pytest.mark.parametrize(("reduction", "nothing"), [("count", 0.0), ("sum", 0.0)])
def test_an_empty_list_is_none(reduction: str, nothing: float):
    assert REDUCTIONS[reduction](nested([], [1.0]))[0] == nothing


@pytest.mark.parametrize("reduction", ["mean", "deviation", "minimum", "maximum"])
def test_an_empty_list_has_no_typical_value(reduction: str):
    assert np.isnan(REDUCTIONS[reduction](nested([1.0], [], [2.0]))[1])


@pytest.mark.parametrize(
    ("reduction", "value"),
    [("count", 4), ("sum", 20), ("mean", 5), ("deviation", 5**0.5), ("minimum", 2), ("maximum", 8)],
)
def test_a_list_reduces_to_what_a_pencil_gives(reduction: str, value: float):
    assert REDUCTIONS[reduction](nested(None, [4.0, 8.0, 2.0, 6.0], [9.0]))[1] == pytest.approx(value)


def test_an_unknown_amount_makes_the_sum_unknown_and_leaves_the_extremes():
    lists = nested([3.0, np.nan, 1.0], [np.nan])

    assert np.isnan(lists.sum(lists["amount"])).all()
    assert lists.maximum(lists["amount"])[0] == 3.0
    assert lists.minimum(lists["amount"])[0] == 1.0
    assert np.isnan(lists.maximum(lists["amount"])[1])


def test_only_chosen_items_are_counted():
    lists = nested([1.0, 5.0, 7.0], None, [5.0])

    np.testing.assert_array_equal(lists.count(lists["amount"] >= 5), [2.0, np.nan, 1.0])


def test_a_value_of_the_applicant_is_spread_over_the_items():
    assert nested([1.0, 2.0], [], [3.0]).spread(np.array([10.0, 20.0, 30.0])).tolist() == [10.0, 10.0, 30.0]


LISTS = st.lists(st.one_of(st.none(), st.lists(st.floats(-1e9, 1e9), max_size=12)), min_size=1, max_size=15)


@given(lists=LISTS, reduction=st.sampled_from(sorted(REDUCTIONS)))
@settings(max_examples=200, deadline=None)
def test_a_list_alone_reduces_to_the_bits_it_has_among_many(lists: list[list[float] | None], reduction: str):
    together = REDUCTIONS[reduction](nested(*lists))
    alone = np.concatenate([REDUCTIONS[reduction](nested(items)) for items in lists])

    assert together.tobytes() == alone.tobytes()


@given(items=st.lists(st.floats(-1e9, 1e9), max_size=40))
@settings(deadline=None)
def test_a_sum_is_added_in_order(items: list[float]):
    total = 0.0
    for item in items:
        total += item

    assert nested(items).sum(np.array(items, dtype=np.float64))[0] == total
