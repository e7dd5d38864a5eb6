"""The scores of a day's applications: the service's bits in a file that is always the same."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cde_domain.decisions.daily import SCORES, read_applications, score_applications, write_scores
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.loan_book import LoanBookError
from tests.support import TinyLoans

DAY = date(2026, 3, 1)


def applications(rows: int = 120) -> pd.DataFrame:
    random = np.random.default_rng(7)
    accounts = [[{"balance": float(b)} for b in random.exponential(5000, n)] for n in random.integers(0, 4, rows)]
    kind = pa.list_(pa.struct([("balance", pa.float64())]))
    return pd.DataFrame(
        {
            "customer_id": [f"c-{number}" for number in range(rows)],
            "annual_income": random.lognormal(10.8, 0.6, rows),
            "loan_amount": random.uniform(1000, 60000, rows),
            "loan_purpose": random.choice(["car", "wedding", "other"], rows),
            "credit_history.score": np.where(random.random(rows) < 0.1, np.nan, random.uniform(300, 900, rows)),
            "credit_history.accounts": pd.array(pa.array(accounts, kind), dtype=pd.ArrowDtype(kind)),
        }
    )


def stored(folder: Path, frame: pd.DataFrame) -> Path:
    path = folder / f"{DAY}.parquet"
    frame.to_parquet(path)
    return path


def test_a_day_gets_the_bits_of_its_applications_one_by_one(
    tiny: TinyLoans, tiny_engine: DecisionEngine, tmp_path: Path
):
    frame = applications()
    book = read_applications(tiny.portfolio, stored(tmp_path, frame), DAY)

    scores = score_applications(tiny_engine, book, DAY, bundle="b" * 64)

    assert {"APPROVED", "REJECTED", "MANUAL_REVIEW"} == set(scores["decision"].to_pylist())
    for row, given in zip(scores.to_pylist(), frame.to_dict("records"), strict=True):
        history: dict[str, Any] = {"accounts": list(given["credit_history.accounts"])}
        if not np.isnan(given["credit_history.score"]):
            history["score"] = given["credit_history.score"]
        body = {name: given[name] for name in ("customer_id", "annual_income", "loan_amount", "loan_purpose")}
        alone = tiny_engine.decide(tiny.portfolio.application.model_validate({**body, "credit_history": history}), DAY)
        assert (alone.score, alone.decision, alone.decided_by) == (row["score"], row["decision"], row["decided_by"])
        assert [*map(str, alone.reason_codes)] == row["reason_codes"]
        assert given["customer_id"] == row["customer_id"]


def test_the_same_applications_are_the_same_bytes(tiny: TinyLoans, tiny_engine: DecisionEngine, tmp_path: Path):
    path = stored(tmp_path, applications())
    written = []
    for name in ("one", "two"):
        book = read_applications(tiny.portfolio, path, DAY)
        write_scores(tmp_path / name / "s.parquet", score_applications(tiny_engine, book, DAY, bundle="b" * 64))
        written.append((tmp_path / name / "s.parquet").read_bytes())

    assert written[0] == written[1]
    assert ["s.parquet"] == [path.name for path in (tmp_path / "one").iterdir()]


def test_a_day_without_applications_is_a_table_without_rows(
    tiny: TinyLoans, tiny_engine: DecisionEngine, tmp_path: Path
):
    book = read_applications(tiny.portfolio, stored(tmp_path, applications().head(0)), DAY)

    assert SCORES.empty_table() == score_applications(tiny_engine, book, DAY, bundle="b")


def test_csv_and_absent_optional_columns_are_taken(tiny: TinyLoans, tiny_engine: DecisionEngine, tmp_path: Path):
    path = tmp_path / f"{DAY}.csv"
    applications(3)[["customer_id", "annual_income", "loan_amount", "loan_purpose"]].to_csv(path, index=False)

    scores = score_applications(tiny_engine, read_applications(tiny.portfolio, path, DAY), DAY, bundle="b")

    assert ["MANUAL_REVIEW"] * 3 == scores["decision"].to_pylist()  # no bureau score, which a rule asks for
    assert ["2026-03-01-0000001", "2026-03-01-0000002"] == scores["application_id"].to_pylist()[:2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loan_purpose": "yacht"}, "loan_purpose: the value must be a known category, 3 of them (rows 1, 2, 3)"),
        ({"annual_income": -1.0}, "annual_income: the value must be > 0"),
        ({"customer_id": "two words"}, "customer_id: the value must be of the declared form"),
        ({"loan_amount": None}, "loan_amount: every value is missing"),
    ],
)
def test_a_day_with_a_bad_value_is_refused_by_column_and_row(
    tiny: TinyLoans, tmp_path: Path, change: dict[str, Any], said: str
):
    path = stored(tmp_path, applications(3).assign(**change))

    with pytest.raises(LoanBookError) as refused:
        read_applications(tiny.portfolio, path, DAY)

    assert said in str(refused.value)
    assert "yacht" not in str(refused.value)


def test_a_day_without_a_required_column_is_refused_by_name(tiny: TinyLoans, tmp_path: Path):
    path = stored(tmp_path, applications(3).drop(columns=["annual_income"]))

    with pytest.raises(LoanBookError, match="annual_income: the column is missing"):
        read_applications(tiny.portfolio, path, DAY)
