"""The holdout set: no customer is on both sides, and it is the same in another order."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from cde_domain.features.table import split


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
