"""Features: one row has the bits of many, and a row of the book is the request that it came from."""

import json
from dataclasses import replace
from datetime import date
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
from cde_domain.features.columns import columns_of_applications, ratio
from cde_domain.features.feature import Feature, feature_matrix
from cde_domain.features.frame import arrow_type, columns_of_frame
from cde_domain.features.table import feature_table, online_parity
from cde_domain.loan_book import parquet_frame
from tests.support import TinyLoans


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
