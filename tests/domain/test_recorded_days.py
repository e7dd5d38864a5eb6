"""What is read back of recorded days, and which outcomes count."""

from datetime import UTC, date, datetime, timedelta
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cde_domain.decisions.monitoring.labels import combined, labels_files, read_labels
from cde_domain.decisions.monitoring.recorded import (
    OUTCOMES,
    decisions_file,
    decisions_schema,
    feature_matrix_of,
    labelled,
    outcomes_file,
    read_decisions,
    read_outcomes,
)
from cde_domain.decisions.monitoring.reproduction import differing, offline_matrix
from cde_domain.features.feature import Feature
from cde_domain.loan_book import LoanBookError
from cde_domain.portfolio import OutcomeLabel, load_portfolio

START = date(2026, 1, 1)
FEATURES = tuple(Feature(name, itemgetter(name), name, name) for name in ("income", "balance"))
LABEL = OutcomeLabel("status", "good", "bad")


def decisions(days: list[int], variants: list[str]) -> pd.DataFrame:
    rows = [
        {
            "decision_id": f"{number:032x}",
            "applied_at": datetime.combine(START + timedelta(days=day), datetime.max.time(), UTC),
            "variant": variant,
        }
        for number, (day, variant) in enumerate(zip(days, variants, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=decisions_schema()).to_pandas()


def outcomes(known: list[tuple[int, str, int]]) -> pd.DataFrame:
    rows = [
        {"decision_id": f"{number:032x}", "outcome": outcome, "known_on": START + timedelta(days=day)}
        for number, outcome, day in known
    ]
    return pa.Table.from_pylist(rows, schema=OUTCOMES).to_pandas()


def test_days_that_were_not_recorded_are_an_empty_frame_with_columns(tmp_path: Path):
    found = read_decisions(tmp_path, START, START + timedelta(days=400))

    assert {"decision_id", "customer", "score", "variant", "reason_codes"} <= set(found.columns)
    assert (0, 0) == (len(found), len(read_outcomes(tmp_path, START, START)))
    assert (0, 2) == feature_matrix_of(found, FEATURES).shape
    assert "repaid" in labelled(found, read_outcomes(tmp_path, START, START), START, 30)


def test_days_of_before_and_after_a_new_feature_are_read_together(tmp_path: Path):
    for day, schema, row in (
        (START, decisions_schema(["income"]), {"decision_id": "a", "feature.income": 3.0}),
        (
            START + timedelta(days=2),
            decisions_schema(["income", "balance"]),
            {"decision_id": "b", "feature.balance": 4.0},
        ),
    ):
        path = decisions_file(tmp_path, day)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([row], schema=schema), path)

    found = read_decisions(tmp_path, START, START + timedelta(days=2))

    assert ["a", "b"] == found["decision_id"].tolist()
    matrix = feature_matrix_of(found, FEATURES)
    assert (3.0, 4.0) == (matrix[0, 0], matrix[1, 1])
    assert np.isnan([matrix[0, 1], matrix[1, 0]]).all()
    assert ["b"] == read_decisions(tmp_path, START + timedelta(days=1), START + timedelta(days=9))[
        "decision_id"
    ].tolist()
    assert outcomes_file(tmp_path, START) != decisions_file(tmp_path, START)


@given(
    days=st.lists(st.integers(0, 60), max_size=30),
    known=st.lists(st.integers(0, 90), min_size=30, max_size=30),
    good=st.lists(st.booleans(), min_size=30, max_size=30),
    shadows=st.lists(st.booleans(), min_size=30, max_size=30),
    as_of=st.integers(0, 100),
    matures=st.one_of(st.none(), st.integers(0, 40)),
)
def test_labels_count_only_of_whole_cohorts_that_are_mature(
    days: list[int], known: list[int], good: list[bool], shadows: list[bool], as_of: int, matures: int | None
):
    decided = decisions(days, ["shadow" if shadow else "champion" for shadow in shadows[: len(days)]])
    told = outcomes([(n, "repaid" if good[n] else "defaulted", known[n]) for n in range(len(days))])

    found = labelled(decided, told, START + timedelta(days=as_of), matures)

    expected = [
        (f"{n:032x}", good[n])
        for n, day in enumerate(days)
        if not shadows[n] and day + (matures or 0) <= as_of and known[n] <= as_of
    ]
    assert expected == list(zip(found["decision_id"], found["repaid"].tolist(), strict=True))


def test_an_early_default_does_not_count_before_its_cohort(tmp_path: Path):
    decided = decisions([0, 0, 20], ["champion"] * 3)
    told = outcomes([(0, "repaid", 31), (1, "defaulted", 5), (2, "defaulted", 22)])

    assert 0 == len(labelled(decided, told, START + timedelta(days=29), 30))
    assert [True, False] == labelled(decided, told, START + timedelta(days=31), 30)["repaid"].tolist()


def test_of_several_labels_files_the_last_known_counts(tmp_path: Path):
    first, second = "0" * 32, "f" * 32
    (tmp_path / "a.csv").write_text(f"decision_id,outcome,known_on\n{first},bad,2026-05-01\n{second},good,2026-05-01\n")
    (tmp_path / "b.csv").write_text(f"decision_id,outcome,known_on,note\n{first},repaid,2026-04-01,x\n")

    whole = combined([read_labels(tmp_path / name, LABEL) for name in ("b.csv", "a.csv")]).set_index("decision_id")

    assert ("defaulted", 1, 0) == (
        whole.loc[first, "outcome"],
        whole.loc[first, "corrections"],
        whole.loc[second, "corrections"],
    )


def test_an_id_of_digits_alone_is_read_as_it_is_written(tmp_path: Path):
    number = "00000000000000000000000000001e10"
    (tmp_path / "a.csv").write_text(f"decision_id,outcome,known_on\n{number},good,2026-05-01\n")

    assert [number] == read_labels(tmp_path / "a.csv", LABEL)["decision_id"].tolist()


def test_a_labels_file_without_a_column_says_which(tmp_path: Path):
    (tmp_path / "a.csv").write_text("decision_id,outcome\n1,good\n")

    with pytest.raises(LoanBookError, match="known_on: the column is missing"):
        read_labels(tmp_path / "a.csv", LABEL)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("decision_id,outcome,known_on\n{id},good,2026-05-01,2026-06-01\n", "more cells than the header"),
        ("decision_id,outcome,known_on\n{id},good,2026-05-01\n{id},good,2026-05-01,x\n", "neither CSV nor Parquet"),
        ("decision_id,outcome,outcome,known_on\n{id},good,bad,2026-05-01\n", "outcome: the column stands there twice"),
    ],
)
def test_a_labels_file_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, content: str, problem: str):
    (tmp_path / "a.csv").write_text(content.replace("{id}", "0" * 32))

    with pytest.raises(LoanBookError, match=problem):
        read_labels(tmp_path / "a.csv", LABEL)


def test_a_labels_file_with_its_name_in_capitals_counts(tmp_path: Path):
    """As other systems write them."""
    (tmp_path / "labels").mkdir()
    for name in ("JUNE.CSV", "may.parquet", "notes.txt"):
        (tmp_path / "labels" / name).touch()

    assert ["JUNE.CSV", "may.parquet"] == [path.name for path in labels_files(tmp_path)]


@pytest.mark.parametrize("name", ["personal_loan", "german_credit", "lending_club"])
def test_a_recorded_request_has_the_same_features_offline(name: str):
    from cde_domain.application import columns_of
    from cde_domain.features.columns import columns_of_applications
    from cde_domain.features.feature import feature_matrix

    portfolio = load_portfolio(name)
    whole = portfolio.application.model_validate(dict(portfolio.example))
    required = {k: v for k, v in dict(portfolio.example).items() if portfolio.application.model_fields[k].is_required()}
    bare = portfolio.application.model_validate(required)
    requests = [one.model_dump_json(exclude_unset=True).encode() for one in (whole, bare)]

    offline = offline_matrix(portfolio, requests, [START, START])

    specs = columns_of(portfolio.application)
    online = feature_matrix(portfolio.features, columns_of_applications([whole, bare], specs, START))
    assert {} == differing(portfolio.features, offline, online)
    changed = offline.copy()
    known = int(np.flatnonzero(~np.isnan(changed[0]))[0])
    changed[0, known] = np.nextafter(changed[0, known], np.inf)
    assert {portfolio.features[known].name: 1} == differing(portfolio.features, changed, online)
