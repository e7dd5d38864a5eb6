"""Features: what is unknown stays unknown, one row has the bits of many, and nothing gives away what it must not."""

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_domain.application import ColumnSpec, columns_of, request_of
from cde_domain.features.columns import Nested, columns_of_applications, ratio
from cde_domain.features.feature import Feature, feature_matrix
from cde_domain.features.frame import arrow_type, columns_of_frame
from cde_domain.features.table import (
    feature_table,
    features_that_give_away,
    online_parity,
    single_feature_aucs,
    split,
)
from cde_domain.loan_book import parquet_frame
from tests.support import TinyLoans


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


def test_a_ratio_to_nothing_is_unknown():
    result = ratio(np.array([1.0, 1.0, 1.0, 6.0, np.nan]), np.array([0.0, -2.0, np.nan, 3.0, 1.0]))

    np.testing.assert_array_equal(result, [np.nan, np.nan, np.nan, 2.0, np.nan])


def test_a_category_or_day_that_is_missing_in_the_book_is_unknown():
    specs = (ColumnSpec("purpose", "category", False, categories=("car", "other")), ColumnSpec("since", "date", False))
    book = pd.DataFrame({"purpose": ["other", None], "since": [pd.Timestamp("1970-01-03"), pd.NaT]})

    columns = columns_of_frame(book.assign(applied_at=pd.NaT), specs)

    np.testing.assert_array_equal(columns["purpose"], [1.0, np.nan])
    np.testing.assert_array_equal(columns["since"], [2.0, np.nan])
    assert np.isnan(columns["applied_at"]).all()


def test_an_infinite_feature_counts_as_unknown(tiny: TinyLoans):
    infinite = Feature("infinite", lambda c: c["annual_income"] * np.inf, "", "")
    columns = columns_of_frame(frame_of([tiny.portfolio.example], tiny), columns_of(tiny.portfolio.application))

    assert np.isnan(feature_matrix((infinite,), columns)).all()


# Applications of the small portfolio, as they come over HTTP, with features of every kind on top of its own.
def _accounts(reduce: Any) -> Any:
    return lambda c: reduce(c["credit_history.accounts"], c["credit_history.accounts"]["balance"])


MORE_FEATURES = (
    Feature("accounts", lambda c: c["credit_history.accounts"].count(), "", ""),
    Feature("mean_balance", _accounts(lambda lists, values: lists.mean(values)), "", ""),
    Feature("deviation", _accounts(lambda lists, values: lists.deviation(values)), "", ""),
    Feature("largest_balance", _accounts(lambda lists, values: lists.maximum(values)), "", ""),
    Feature("smallest_balance", _accounts(lambda lists, values: lists.minimum(values)), "", ""),
    Feature("root", lambda c: np.sqrt(c["annual_income"]), "", ""),
    Feature("employed_for", lambda c: (c["applied_at"] - c["employed_since"]) / 365.25, "", ""),
    Feature(
        "large_accounts",
        lambda c: c["credit_history.accounts"].count(
            c["credit_history.accounts"]["balance"] > c["credit_history.accounts"].spread(c["loan_amount"])
        ),
        "",
        "",
    ),
)
AMOUNT = st.floats(0.01, 1e7)
HISTORIES = st.fixed_dictionaries(
    {},
    optional={
        "score": st.floats(300, 900),
        "accounts": st.lists(st.fixed_dictionaries({"balance": st.floats(0, 1e7)}), max_size=6),
    },
).filter(bool)
REQUESTS = st.fixed_dictionaries(
    {
        "customer_id": st.from_regex(r"[A-Za-z0-9._:\-]{1,12}", fullmatch=True),
        "annual_income": AMOUNT,
        "loan_amount": AMOUNT,
        "loan_purpose": st.sampled_from(["car", "wedding", "other"]),
    },
    optional={
        "employed_since": st.dates(date(1950, 1, 1), date(2026, 1, 1)).map(date.isoformat),
        "note": st.text(min_size=1, max_size=20),
        "credit_history": HISTORIES,
    },
)


def row_of(request: dict[str, Any], tiny: TinyLoans) -> dict[str, Any]:
    """A request as a row of the loan book, by dotted column name."""
    row: dict[str, Any] = {}
    for spec in columns_of(tiny.portfolio.application):
        value: Any = request
        for name in spec.path:
            value = None if value is None else value.get(name)
        row[spec.name] = pd.Timestamp(value) if spec.kind == "date" and value else value
    return row


def frame_of(requests: list[dict[str, Any]], tiny: TinyLoans, applied: list[date] | None = None) -> pd.DataFrame:
    """The loan book that requests make, lists in Arrow's type."""
    frame = pd.DataFrame([row_of(request, tiny) for request in requests])
    for spec in columns_of(tiny.portfolio.application):
        if spec.kind == "list":
            frame[spec.name] = pd.Series(frame[spec.name], dtype=pd.ArrowDtype(arrow_type(spec)))
        elif spec.kind == "number":
            frame[spec.name] = frame[spec.name].astype(float)
    frame["applied_at"] = pd.to_datetime(pd.Series(applied or [date(2026, 1, 1)] * len(requests)))
    return frame


@given(
    drawn=st.lists(st.tuples(REQUESTS, st.dates(date(2000, 1, 1), date(2030, 1, 1))), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_an_application_alone_has_the_bits_it_has_in_the_book(
    tiny: TinyLoans, drawn: list[tuple[dict[str, Any], date]]
):
    features = (*tiny.portfolio.features, *MORE_FEATURES)
    specs = columns_of(tiny.portfolio.application)
    requests, days = [request for request, _ in drawn], [day for _, day in drawn]
    book = feature_matrix(features, columns_of_frame(frame_of(requests, tiny, days), specs))

    for request, day, in_the_book in zip(requests, days, book, strict=True):
        application = tiny.portfolio.application.model_validate_json(json.dumps(request))
        alone = feature_matrix(features, columns_of_applications([application], specs, day))[0]
        np.testing.assert_array_equal(np.isnan(alone), np.isnan(in_the_book))
        known = ~np.isnan(alone)
        assert alone[known].tobytes() == in_the_book[known].tobytes()


@given(request=REQUESTS)
@settings(max_examples=100, deadline=None)
def test_a_row_of_the_book_is_the_request_it_came_from(tiny: TinyLoans, request: dict[str, Any]):
    specs = columns_of(tiny.portfolio.application)

    assert request_of(row_of(request, tiny), specs) == request


def test_a_book_read_from_parquet_gives_the_requests_it_was_made_from(tiny: TinyLoans, tmp_path: Path):
    specs = columns_of(tiny.portfolio.application)
    thin = {"customer_id": "thin", "annual_income": 1.0, "loan_amount": 2.0, "loan_purpose": "other"}
    requests = [dict(tiny.portfolio.example), thin, {**thin, "credit_history": {"accounts": []}}]
    pq.write_table(pa.Table.from_pandas(frame_of(requests, tiny)), tmp_path / "book.parquet")

    rows = parquet_frame(tmp_path / "book.parquet").to_dict("records")

    assert [request_of(row, specs) for row in rows] == requests


def test_a_request_from_a_row_keeps_whole_numbers_whole_and_flags_flags():
    specs = (ColumnSpec("term", "number", True, integer=True), ColumnSpec("owner", "flag", True))

    request = request_of({"term": 36.0, "owner": np.bool_(True)}, specs)

    assert json.dumps(request) == '{"term": 36, "owner": true}'


@pytest.fixture(scope="module")
def tiny_book(tiny: TinyLoans) -> pd.DataFrame:
    random = np.random.default_rng(0)
    requests = [
        {**tiny.portfolio.example, "customer_id": f"c{row}", "annual_income": float(random.lognormal(10, 1))}
        for row in range(120)
    ]
    book = frame_of(requests, tiny).assign(repaid=(np.arange(120) % 4 > 0).astype(float))
    book.insert(0, "application_id", [f"a{row}" for row in range(120)])
    return book


def test_parity_holds_where_features_keep_to_the_rules(tiny: TinyLoans, tiny_book: pd.DataFrame):
    result = online_parity(tiny.portfolio, tiny_book, feature_table(tiny.portfolio, tiny_book), rows=50, seed=1)

    assert (result.rows, dict(result.differing)) == (50, {})


def test_parity_names_a_feature_that_looks_at_other_applications(tiny: TinyLoans, tiny_book: pd.DataFrame):
    peeking = Feature("against_the_mean", lambda c: c["annual_income"] - c["annual_income"].mean(), "", "")
    portfolio = replace(tiny.portfolio, features=(*tiny.portfolio.features, peeking))

    result = online_parity(portfolio, tiny_book, feature_table(portfolio, tiny_book), rows=50, seed=1)

    assert dict(result.differing) == {"against_the_mean": 50}


def test_parity_sees_one_bit(tiny: TinyLoans, tiny_book: pd.DataFrame):
    table = feature_table(tiny.portfolio, tiny_book)
    table.loc[7, "annual_income"] = np.nextafter(table.loc[7, "annual_income"], np.inf)

    assert dict(online_parity(tiny.portfolio, tiny_book, table, rows=120, seed=1).differing) == {"annual_income": 1}


def labelled(rows: int, *, customers: int, dated: bool, unknown: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(3)
    repaid = (random.random(rows) < 0.8).astype(float)
    repaid[:unknown] = np.nan
    dates = [pd.Timestamp("2025-01-01") + timedelta(days=int(day)) for day in random.integers(0, 300, rows)]
    return pd.DataFrame(
        {
            "application_id": [f"a{row:05d}" for row in random.permutation(rows)],
            "customer_id": [f"c{number}" for number in random.integers(0, customers, rows)],
            "applied_at": pd.Series(dates if dated else pd.NaT, index=range(rows), dtype="datetime64[ns]"),
            "annual_income": random.random(rows),
            "repaid": repaid,
        }
    )


@pytest.mark.parametrize("dated", [True, False])
def test_no_customer_is_on_both_sides_of_the_split(dated: bool):
    training, holdout = split(labelled(1000, customers=400, dated=dated), seed=1)

    assert len(training) and len(holdout)
    assert not set(training["customer_id"]) & set(holdout["customer_id"])


@pytest.mark.parametrize("dated", [True, False])
def test_applications_without_an_outcome_are_on_neither_side(dated: bool):
    training, holdout = split(labelled(1000, customers=1000, dated=dated, unknown=200), seed=1)

    assert training["repaid"].notna().all() and holdout["repaid"].notna().all()
    assert len(training) + len(holdout) <= 800


def test_a_dated_book_is_split_by_time():
    table = labelled(1000, customers=2000, dated=True)

    training, holdout = split(table, seed=1)

    assert len(holdout) == 200
    assert training["applied_at"].max() <= holdout["applied_at"].min()


def test_customers_who_come_back_late_leave_the_training_set():
    table = labelled(1000, customers=300, dated=True)

    training, holdout = split(table, seed=1)

    assert len(holdout) == 200
    assert len(training) == (~table["customer_id"].isin(holdout["customer_id"])).sum() < 800


def test_a_dated_split_does_not_depend_on_the_order_of_rows():
    table = labelled(500, customers=200, dated=True)

    first, second = split(table, seed=1), split(table.sample(frac=1, random_state=9), seed=2)

    assert [set(part["application_id"]) for part in first] == [set(part["application_id"]) for part in second]


def test_an_undated_split_holds_out_the_same_loans_in_another_order_and_partly_relabelled():
    table = labelled(1000, customers=600, dated=False)
    other = table.sample(frac=1, random_state=2).assign(application_id=[f"b{row}" for row in range(1000)])
    other = other.assign(repaid=other["repaid"].mask(other["annual_income"] < 0.1))

    held_out, again = (set(split(book, seed=1)[1]["annual_income"]) for book in (table, other))

    known = set(other.loc[other["repaid"].notna(), "annual_income"])
    assert held_out & known == again


def test_an_undated_split_holds_out_about_a_fifth_whatever_the_outcome():
    table = labelled(2000, customers=4000, dated=False)

    training, holdout = split(table, seed=1)

    assert len(holdout) / len(table) == pytest.approx(0.2, abs=0.03)
    assert holdout["repaid"].mean() == pytest.approx(training["repaid"].mean(), abs=0.05)


def test_an_undated_split_changes_with_its_seed_alone():
    table = labelled(500, customers=500, dated=False)

    holdouts = [set(split(table, seed=seed)[1]["application_id"]) for seed in (1, 1, 2)]

    assert holdouts[0] == holdouts[1] != holdouts[2]


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
