"""The loan book: which files are read, and how an unusable book is refused without showing anybody's data."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from cde_domain.application import Application, Record, field
from cde_domain.features.columns import Columns
from cde_domain.features.feature import Feature
from cde_domain.features.table import feature_table
from cde_domain.loan_book import LoanBookError, Problem, assemble, immature, read_table, validate
from cde_domain.portfolio import OutcomeLabel, Portfolio, ProtectedAttribute
from tests.support import TinyLoans

SECRET = 987654.25  # a value of somebody's application, which no message may show


def loans(rows: int = 40) -> pd.DataFrame:
    """A sound book of small loans."""
    return pd.DataFrame(
        {
            "application_id": [f"a{row}" for row in range(rows)],
            "customer_id": [f"c{row}" for row in range(rows)],
            "annual_income": np.linspace(20_000, 90_000, rows),
            "loan_amount": np.linspace(1_000, 9_000, rows),
            "loan_purpose": [("car", "wedding", "other")[row % 3] for row in range(rows)],
            "employed_since": ["2020-03-01" if row % 2 else None for row in range(rows)],
            "note": ["please" if row % 5 else None for row in range(rows)],
            "credit_history.score": np.where(np.arange(rows) % 4, 700.0, np.nan),
            "credit_history.accounts": [[{"balance": 100.0 * row}] if row % 3 else None for row in range(rows)],
            "status": ["bad" if row % 4 == 0 else "good" for row in range(rows)],
        }
    )


def problems_of(portfolio: Portfolio, book: pd.DataFrame) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    """What is wrong with a book, by column; no message shows a value."""
    with pytest.raises(LoanBookError) as refused:
        assemble(portfolio, {"loans": book})
    message = str(refused.value)
    assert message.startswith("the loan book of tiny_loans cannot be used:\n  - ")
    for value in ("987654", "yacht", "maybe", "plenty"):
        assert value not in message.replace("'good' nor 'bad'", "")
    return {problem.column: (problem.what, problem.count, problem.rows) for problem in refused.value.problems}


def test_a_sound_book_is_assembled_in_its_declared_types(tiny: TinyLoans):
    book = assemble(tiny.portfolio, {"loans": loans()})

    assert len(book) == 40
    assert book["employed_since"].dtype == "datetime64[ns]"
    assert book["repaid"].tolist() == [0.0 if row % 4 == 0 else 1.0 for row in range(40)]
    assert book["applied_at"].isna().all()


def test_features_are_computed_from_a_sound_book(tiny: TinyLoans):
    table = feature_table(tiny.portfolio, assemble(tiny.portfolio, {"loans": loans()}))

    assert table["total_balance"].isna().sum() == 14
    assert table["total_balance"][4] == 400.0


def test_an_outcome_that_is_still_open_stays_unknown(tiny: TinyLoans):
    book = loans()
    book.loc[3, "status"] = None

    assert np.isnan(assemble(tiny.portfolio, {"loans": book})["repaid"][3])


def test_applications_without_an_identifier_are_numbered(tiny: TinyLoans):
    book = assemble(tiny.portfolio, {"loans": loans().drop(columns=["application_id", "customer_id"])})

    assert book["application_id"].iloc[[0, -1]].tolist() == ["tiny_loans-0000001", "tiny_loans-0000040"]
    assert (book["customer_id"] == book["application_id"]).all()


def test_identifiers_that_are_numbers_become_text(tiny: TinyLoans):
    book = assemble(tiny.portfolio, {"loans": loans().assign(application_id=range(40), customer_id=range(40))})

    assert book["application_id"].tolist()[:2] == ["0", "1"]
    assert book["customer_id"].tolist()[:2] == ["0", "1"]


def test_a_column_that_the_portfolio_does_not_ask_for_is_left_behind(tiny: TinyLoans):
    assert "shoe_size" not in assemble(tiny.portfolio, {"loans": loans().assign(shoe_size=42)})


def test_the_groups_of_a_protected_attribute_are_kept_aside(tiny: TinyLoans):
    district = ProtectedAttribute("district", lambda book: book["district"], use="gate", why="a test")
    portfolio = replace(tiny.portfolio, protected=(district,))

    book = assemble(portfolio, {"loans": loans().assign(district="north")})

    assert set(book["protected.district"]) == {"north"}
    assert "district" not in book


def test_a_protected_attribute_whose_column_is_missing_is_named(tiny: TinyLoans):
    district = ProtectedAttribute("district", lambda book: book["postcode"], use="gate", why="a test")

    found = problems_of(replace(tiny.portfolio, protected=(district,)), loans())

    assert found == {"postcode": ("the column is missing (district needs it)", 0, ())}


def changed(column: str, *values: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A book with other values in one column, from row 3 on."""

    def change(book: pd.DataFrame) -> pd.DataFrame:
        cells = book[column].astype(object).tolist()
        cells[2 : 2 + len(values)] = values
        return book.assign(**{column: pd.Series(cells, dtype="object")})

    return change


@pytest.mark.parametrize(
    ("change", "column", "problem"),
    [
        pytest.param(
            lambda book: book.drop(columns="annual_income"),
            "annual_income",
            ("the column is missing", 0, ()),
            id="missing column",
        ),
        pytest.param(
            lambda book: book.drop(columns="credit_history.accounts"),
            "credit_history.accounts",
            ("the column is missing", 0, ()),
            id="missing list",
        ),
        pytest.param(
            lambda book: book.drop(columns="status"),
            "status",
            ("the outcome column is missing", 0, ()),
            id="missing outcome",
        ),
        pytest.param(
            changed("annual_income", "plenty", "plenty"),
            "annual_income",
            ("the value is of the wrong type", 2, (3, 4)),
            id="wrong type",
        ),
        pytest.param(
            changed("employed_since", "plenty"),
            "employed_since",
            ("the value is of the wrong type", 1, (3,)),
            id="wrong date",
        ),
        pytest.param(
            changed("annual_income", -SECRET),
            "annual_income",
            ("the value must be > 0", 1, (3,)),
            id="out of bounds below",
        ),
        pytest.param(
            changed("credit_history.score", *[SECRET] * 7),
            "credit_history.score",
            ("the value must be <= 900", 7, (3, 4, 5, 6, 7)),
            id="out of bounds above",
        ),
        pytest.param(
            changed("loan_amount", None), "loan_amount", ("a value is missing", 1, (3,)), id="missing required value"
        ),
        pytest.param(
            changed("loan_purpose", "yacht"),
            "loan_purpose",
            ("the value must be a known category", 1, (3,)),
            id="unknown category",
        ),
        pytest.param(
            changed("application_id", "a1"),
            "application_id",
            ("the value is not unique", 2, (2, 3)),
            id="doubled identifier",
        ),
        pytest.param(
            changed("status", "maybe", "maybe"),
            "status",
            ("the outcome is neither 'good' nor 'bad'", 2, (3, 4)),
            id="third outcome",
        ),
        pytest.param(
            lambda book: book.assign(status="good"),
            "status",
            ("all known outcomes are the same, so there is nothing to learn", 0, ()),
            id="one outcome only",
        ),
        pytest.param(
            lambda book: book.assign(note=None), "note", ("every value is missing", 40, ()), id="empty optional column"
        ),
        pytest.param(
            lambda book: book.assign(annual_income=None),
            "annual_income",
            ("every value is missing", 40, ()),
            id="empty required column",
        ),
        pytest.param(
            lambda book: book.assign(**{"credit_history.accounts": None}),
            "credit_history.accounts",
            ("every value is missing", 40, ()),
            id="empty list column",
        ),
        pytest.param(
            changed("credit_history.accounts", [{"balance": 5.0}, {"balance": -SECRET}]),
            "credit_history.accounts.balance",
            ("a value is missing or out of bounds", 1, (3,)),
            id="nested value out of bounds",
        ),
        pytest.param(
            changed("credit_history.accounts", [{"balance": None}], [], [{"balance": 1.0}, {}]),
            "credit_history.accounts.balance",
            ("a value is missing or out of bounds", 2, (3, 5)),
            id="nested value missing",
        ),
        pytest.param(
            changed("credit_history.accounts", "plenty"),
            "credit_history.accounts",
            ("the value is no list of records with the declared fields", 40, ()),
            id="no list",
        ),
    ],
)
def test_an_unusable_book_is_refused_naming_column_count_and_rows(
    change: Callable[[pd.DataFrame], pd.DataFrame],
    column: str,
    problem: tuple[str, int, tuple[int, ...]],
    tiny: TinyLoans,
):
    assert problems_of(tiny.portfolio, change(loans())) == {column: problem}


def test_all_problems_are_named_at_once(tiny: TinyLoans):
    book = changed("loan_purpose", "yacht")(changed("annual_income", -SECRET)(loans().drop(columns="note")))

    assert list(problems_of(tiny.portfolio, book)) == ["annual_income", "loan_purpose", "note"]


def test_a_problem_says_how_many_and_where():
    assert str(Problem("income", "a value is missing", 7, (1, 2, 3, 4, 5))) == (
        "income: a value is missing, 7 of them (rows 1, 2, 3, 4, 5, ...)"
    )
    assert str(Problem("income", "a value is missing", 1, (9,))) == "income: a value is missing, 1 of them (rows 9)"
    assert str(Problem("income", "the column is missing", 0)) == "income: the column is missing"


class Item(Record):
    kind: Literal["card", "loan"] = field("Kind", purpose="test")


class WithItems(Application):
    """An application whose list has categories, and a whole number."""

    items: list[Item] = field("Items", purpose="test")
    term: int = field("Term", purpose="test", ge=1, le=60)


@pytest.fixture
def itemised(tiny: TinyLoans) -> Portfolio:
    def count(columns: Columns) -> np.ndarray:
        return columns["items"].count()

    return replace(tiny.portfolio, application=WithItems, features=(Feature("items", count, "Items", "Items"),))


def items_book(*lists: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {"items": list(lists), "term": 12, "status": ["good" if row % 2 else "bad" for row in range(len(lists))]}
    )


def test_an_unknown_category_within_a_list_is_named_by_its_row(itemised: Portfolio):
    book = items_book([{"kind": "card"}], [{"kind": "loan"}, {"kind": "yacht"}], [], [{"kind": "yacht"}])

    assert problems_of(itemised, book) == {"items.kind": ("a category is unknown", 2, (2, 4))}


def test_a_fraction_where_a_whole_number_belongs_is_refused(itemised: Portfolio):
    book = items_book([{"kind": "card"}], [], [], []).assign(term=[12, 12.5, 24, 36])

    assert problems_of(itemised, book) == {"term": ("the value must be a whole number", 1, (2,))}


def dated(tiny: TinyLoans) -> Portfolio:
    return replace(tiny.portfolio, outcome=OutcomeLabel("status", "good", "bad", matures_after_days=365))


@pytest.mark.parametrize("column", ["applied_at", "outcome_known_at"])
def test_a_portfolio_whose_outcomes_mature_needs_dates(column: str, tiny: TinyLoans):
    with pytest.raises(LoanBookError) as refused:
        assemble(dated(tiny), {"loans": loans()})

    assert f"{column}: the column is missing, and outcomes of this portfolio need dates" in str(refused.value)


def test_a_book_that_was_validated_stays_valid(tiny: TinyLoans):
    book = assemble(tiny.portfolio, {"loans": loans()})

    assert validate(tiny.portfolio, book)[1] == []


def test_a_validated_book_that_is_changed_is_no_longer_valid(tiny: TinyLoans):
    book = assemble(tiny.portfolio, {"loans": loans()})
    book.loc[4, "annual_income"] = -SECRET

    assert validate(tiny.portfolio, book)[1] == [Problem("annual_income", "the value must be > 0", 1, (5,))]


def test_an_outcome_is_immature_until_its_last_day():
    applied = pd.Timestamp("2025-01-01")
    book = pd.DataFrame(
        {
            "applied_at": [applied] * 4 + [pd.NaT],
            "outcome_known_at": [applied + pd.Timedelta(days=days) for days in (364, 365, 366)] + [pd.NaT, applied],
            "repaid": 1.0,
        }
    )

    assert immature(book, 365).tolist() == [True, False, False, True, True]


def test_a_loan_whose_outcome_is_open_is_not_immature():
    book = pd.DataFrame({"applied_at": [pd.NaT], "outcome_known_at": [pd.NaT], "repaid": [np.nan]})

    assert immature(book, 365).tolist() == [False]


def test_a_csv_is_read_with_only_empty_cells_missing(tmp_path: Path):
    path = tmp_path / "loans.csv"
    path.write_text("purpose,amount\nnone,1\nNA,2\n,3\n", encoding="utf-8")

    assert read_table(path)["purpose"].tolist()[:2] == ["none", "NA"]
    assert read_table(path)["purpose"].isna().tolist() == [False, False, True]


def test_a_parquet_file_is_read_whatever_its_name(tmp_path: Path):
    frame = pd.DataFrame({"income": [1.5, None], "accounts": [[{"balance": 1.0}], None]})
    frame.to_parquet(tmp_path / "loans.data")

    read = read_table(tmp_path / "loans.data")

    assert read["income"].tolist()[0] == 1.5
    assert str(read["accounts"].dtype).startswith("list<")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param(b"", "is neither CSV nor Parquet", id="empty"),
        pytest.param(b"purpose,amount\n", "has no rows", id="header only"),
        pytest.param(b"PAR1 but not really", "is neither CSV nor Parquet", id="broken Parquet"),
        pytest.param(b"PK\x03\x04\x00\x00 a spreadsheet", "is neither CSV nor Parquet", id="binary"),
        pytest.param(b"one column only\n1\n2\n", "is neither CSV nor Parquet", id="prose"),
        pytest.param(b"a,b\n1,2\n3,4,5\n", "is neither CSV nor Parquet", id="ragged"),
        pytest.param(b"a,b\n\xff\xfe,2\n", "is neither Parquet nor CSV in UTF-8", id="no UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(content: bytes, what: str, tmp_path: Path):
    path = tmp_path / "loans.csv"
    path.write_bytes(content)

    with pytest.raises(LoanBookError) as refused:
        read_table(path)

    assert str(refused.value) == f"the source file cannot be used:\n  - loans.csv: {what}"


@pytest.mark.parametrize("name", ["missing.csv", ""])
def test_a_file_that_is_not_there_is_refused(name: str, tmp_path: Path):
    with pytest.raises(LoanBookError, match="there is no such file"):
        read_table(tmp_path / name)
