"""`decisions` and `outcomes`: what an app decided and was told, by the day, read from a real decision log."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from cde_assets.decisions import recorded
from cde_assets.decisions.day_files import DayFile, notes_of, one_writer
from cde_assets.decisions.due import days_to_record
from cde_checks.decisions.recorded import sample_of
from cde_domain.decisions.monitoring.recorded import decisions_file, feature_matrix_of
from cde_serving.records.replay import matrix_of
from cde_serving.records.store import RecordStore
from tests.assets.branch import Branch, checked, metadata_of, said, why
from tests.serving.postgres import Postgres
from tests.support import TinyLoans

DAY, NEXT, EMPTY = "2026-03-02", "2026-03-03", "2026-03-04"


@pytest.fixture
def branch(watched_loans: tuple[TinyLoans, Path], tmp_path: Path) -> Iterator[Branch]:
    with Branch(tmp_path, *watched_loans, f"{DAY}T09:00") as branch:
        yield branch


def approved(branch: Branch, customer: str, **changes: Any) -> str:
    """The decision on an application that is surely approved."""
    answer = branch.score(customer, annual_income=120_000.0, loan_amount=9_000.0, **changes)
    assert answer["decision"] == "APPROVED"
    return str(answer["decision_id"])


def test_a_day_is_recorded_with_the_very_features_that_decided(branch: Branch):
    incomplete = {"annual_income": 20_000.0, "loan_amount": 15_000.0, "credit_history": None, "loan_purpose": "wedding"}
    answers = [branch.score("c-1", gender="female"), branch.score("c-2", **incomplete)]
    branch.set_clock(f"{DAY}T23:59:59.999999")
    answers.append(branch.score("c-3"))
    branch.set_clock(f"{NEXT}T00:00")
    answers.append(branch.score("c-4"))

    result = branch.monitor(DAY, NEXT)

    assert result.success, why(result)
    found = branch.decisions(DAY)
    assert [answer["decision_id"] for answer in answers[:3]] == found["decision_id"].tolist()
    assert [answer["decision"] for answer in answers[:3]] == found["decision"].tolist()
    assert [answer["score"] for answer in answers[:3]] == found["score"].tolist()
    assert [answer["reason_codes"] for answer in answers[:3]] == [list(codes) for codes in found["reason_codes"]]
    assert ["female", None, None] == found["protected.gender"].tolist()
    assert found["customer"].tolist() == [branch.log.master.token("customer", "default", f"c-{n}") for n in (1, 2, 3)]
    assert [answers[3]["decision_id"]] == branch.decisions(NEXT)["decision_id"].tolist()
    features = branch.portfolio.features
    store = RecordStore(branch.log.read_engine, branch.log.master)
    recorded_features = [store.get(id_, "default").payload.features for id_ in found["decision_id"]]  # type: ignore[union-attr]
    expected = np.vstack([matrix_of(features, values) for values in recorded_features])
    assert expected.tobytes() == feature_matrix_of(found, features).tobytes()
    assert {"recorded_features_are_reproduced": True, "log_chain_verifies": True} == checked(result)


def test_a_log_in_postgresql_gives_the_same_days(
    watched_loans: tuple[TinyLoans, Path], postgres: Postgres, tmp_path: Path
):
    with Branch(tmp_path, *watched_loans, f"{DAY}T09:00", postgres.new_database()) as branch:
        by_route, by_file = approved(branch, "c-1", gender="female"), approved(branch, "c-2")
        approved(branch, "c-erased")
        branch.erase("c-erased")
        branch.tell(by_route, "repaid", DAY)
        branch.labels("march.csv", (by_file, "bad", DAY))
        branch.set_clock(f"{EMPTY}T09:00")

        result = branch.monitor(DAY, NEXT)

        assert result.success, why(result)
        assert [by_route, by_file] == branch.decisions(DAY)["decision_id"].tolist()
        assert ["female", None] == branch.decisions(DAY)["protected.gender"].tolist()
        assert [(by_route, "repaid", "route"), (by_file, "defaulted", "file")] == [
            (row["decision_id"], row["outcome"], row["source"]) for row in branch.outcomes(DAY)
        ]
        assert {"recorded_features_are_reproduced": True, "log_chain_verifies": True} == checked(result)
        assert not asked_again(branch, DAY)


def asked_again(branch: Branch, day: str) -> bool:
    """Whether a day that was read still counts as not read."""
    today = branch.settings.clock()().date()
    return date.fromisoformat(day) in days_to_record(
        branch.log.read_engine, branch.folder, branch.portfolio.name, today
    )


def test_counts_and_rates_are_shown_by_the_day_and_nothing_of_a_person(branch: Branch):
    approved(branch, "customer-whom-nobody-may-see", credit_history={"score": 821.25, "accounts": [{"balance": 900.0}]})
    branch.score("c-2", annual_income=9_000.0, loan_amount=80_000.0, credit_history={"score": 301.0})

    result = branch.monitor(DAY, NEXT)

    shown = metadata_of(result, "decisions", DAY)
    assert (2, 0.5, 0.5) == (shown["decisions"], shown["approved_rate"], shown["rejected_rate"])
    assert "days" not in shown
    assert "data:image/png;base64" in metadata_of(result, "decisions", NEXT)["days"]
    for secret in ("nobody-may-see", "821.25", branch.log.master.token("customer", "default", "c-2")):
        assert secret not in said(result)


def test_a_day_without_decisions_is_a_day(branch: Branch):
    branch.score("c-1")

    result = branch.monitor(DAY, EMPTY)

    assert result.success, why(result)
    assert (0, 0) == (len(branch.decisions(EMPTY)), len(branch.outcomes(EMPTY)))
    assert all(
        name in branch.files() for name in (f"decisions/{kind}/{EMPTY}.parquet" for kind in ("recorded", "outcomes"))
    )
    assert {"recorded_features_are_reproduced": True, "log_chain_verifies": True} == checked(result)
    assert 0 == metadata_of(result, "decisions", EMPTY)["decisions"]


def test_the_same_day_again_is_the_same_bytes(branch: Branch):
    branch.tell(approved(branch, "c-1"), "repaid", DAY)
    assert branch.monitor(DAY).success
    before = branch.files()

    assert branch.monitor(DAY).success
    assert before == branch.files()


def test_a_shadow_decision_says_which_answer_it_is_about(branch: Branch):
    answered = branch.score("c-1")["decision_id"]
    record = RecordStore(branch.log.read_engine, branch.log.master).get(answered)
    assert record is not None
    branch.shadow(record, record_id=answered[:-4] + "ffff")

    assert branch.monitor(DAY).success

    found = branch.decisions(DAY).set_index("variant")
    assert (answered, None) == (found.loc["shadow", "about"], found.loc["champion", "about"])
    assert found.loc["shadow", "decision_id"] != answered


def test_an_outcome_lands_in_the_day_of_its_decision_however_late(branch: Branch):
    decision = approved(branch, "c-1")
    branch.set_clock("2026-06-30T12:00")
    branch.tell(decision, "repaid", "2026-06-29")

    assert branch.monitor(DAY, NEXT).success

    (outcome,) = branch.outcomes(DAY)
    assert (decision, "repaid", "2026-06-29") == (outcome["decision_id"], outcome["outcome"], str(outcome["known_on"]))
    assert ("route", 0, DAY) == (outcome["source"], outcome["corrections"], str(outcome["applied_at"].date()))
    assert [] == branch.outcomes(NEXT)


def test_the_last_correction_stands_even_if_it_names_an_earlier_day(branch: Branch):
    decision = approved(branch, "c-1")
    branch.set_clock("2026-06-30T12:00")
    branch.tell(decision, "repaid", "2026-06-29")
    branch.tell(decision, "defaulted", "2026-05-01")

    assert branch.monitor(DAY).success

    (outcome,) = branch.outcomes(DAY)
    assert ("defaulted", "2026-05-01", 1) == (outcome["outcome"], str(outcome["known_on"]), outcome["corrections"])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_labels_files_count_beside_the_route_and_the_later_known_wins(branch: Branch, ending: str):
    by_route, by_both, by_file = (approved(branch, f"c-{number}") for number in range(3))
    branch.set_clock("2026-06-30T12:00")
    branch.tell(by_route, "repaid", "2026-06-01")
    branch.tell(by_both, "repaid", "2026-06-01")
    branch.labels(f"june.{ending}", (by_route, "defaulted", "2026-06-01"), (by_both, "bad", "2026-06-02"))
    branch.labels(f"july.{ending}", (by_file, "good", "2026-06-03"))

    result = branch.monitor(DAY)

    assert result.success, why(result)
    found = {row["decision_id"]: (row["outcome"], row["source"], row["corrections"]) for row in branch.outcomes(DAY)}
    assert {
        by_route: ("repaid", "route", 1),
        by_both: ("defaulted", "file", 1),
        by_file: ("repaid", "file", 0),
    } == found
    assert 2 == metadata_of(result, "outcomes", DAY)["from_files"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("0" * 32, "repaid", "2026-03-05"), "decision_id: no such decision is recorded, 1 of them (rows 2)"),
        (("nonsense", "repaid", "2026-03-05"), "decision_id: no id of a decision, 1 of them (rows 2)"),
        (("REJECTED", "repaid", "2026-03-05"), "outcome: nothing was lent: the decision stands as REJECTED"),
        (("SECOND", "maybe", "2026-03-05"), "outcome: none of repaid, defaulted, good, bad, 1 of them (rows 2)"),
        (("SECOND", "repaid", "5 March"), "known_on: no day like 2026-03-31, 1 of them (rows 2)"),
        (("SECOND", "repaid", "2026-03-01"), "known_on: the day lies before the application, 1 of them (rows 2)"),
        (("SECOND", "repaid", "2027-01-01"), "known_on: the day lies in the future, 1 of them (rows 2)"),
        (("FIRST", "defaulted", "2026-03-06"), "decision_id: the decision stands there twice, 2 of them (rows 1, 2)"),
    ],
)
def test_a_labels_file_with_a_bad_row_is_refused_whole(branch: Branch, row: tuple[str, str, str], problem: str):
    known = {
        "FIRST": approved(branch, "c-1"),
        "SECOND": approved(branch, "c-2"),
        "REJECTED": branch.score("c-3", annual_income=9_000.0, loan_amount=80_000.0, credit_history={"score": 301.0})[
            "decision_id"
        ],
    }
    branch.set_clock("2026-03-10T00:20")
    branch.tell(known["SECOND"], "repaid", "2026-03-04")
    assert branch.monitor(DAY).success
    before = branch.files()
    branch.labels("bad.csv", (known["FIRST"], "repaid", "2026-03-05"), (known.get(row[0], row[0]), *row[1:]))

    result = branch.follow(DAY)

    assert not result.success
    assert "the labels file bad.csv cannot be used" in why(result)
    assert problem in why(result)
    assert before == branch.files()


def test_two_labels_files_that_contradict_each_other_are_refused(branch: Branch):
    decision = approved(branch, "c-1")
    branch.set_clock("2026-03-10T00:20")
    branch.labels("a.csv", (decision, "repaid", "2026-03-05"))
    branch.labels("b.csv", (decision, "defaulted", "2026-03-05"))

    assert "the labels file b.csv cannot be used" in why(branch.monitor(DAY))

    branch.labels("b.csv", (decision, "defaulted", "2026-03-06"))
    assert branch.monitor(DAY).success
    assert [("defaulted", 1)] == [(row["outcome"], row["corrections"]) for row in branch.outcomes(DAY)]


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02", b"PAR1 and no more", "decision_id;outcome\n1;2\n".encode("utf-16")]
)
def test_a_damaged_labels_file_is_refused(branch: Branch, content: bytes):
    approved(branch, "c-1")
    branch.labels("june.csv").write_bytes(content)

    assert "june.csv" in why(branch.monitor(DAY))


def test_whoever_is_erased_is_in_no_recorded_day(branch: Branch):
    stays, goes, labelled = (approved(branch, name) for name in ("stays", "goes", "labelled"))
    branch.set_clock("2026-03-10T00:20")
    branch.tell(stays, "repaid", "2026-03-05")
    branch.tell(goes, "repaid", "2026-03-05")
    branch.labels("june.csv", (labelled, "repaid", "2026-03-05"))
    assert branch.monitor(DAY).success

    branch.erase("goes")
    assert [stays, labelled] == branch.decisions(DAY)["decision_id"].tolist()
    assert [stays, labelled] == [row["decision_id"] for row in branch.outcomes(DAY)]
    branch.erase("labelled")

    assert branch.monitor(DAY).success  # read from the log again, the labels file still names the decision
    assert [stays] == branch.decisions(DAY)["decision_id"].tolist()
    assert [stays] == [row["decision_id"] for row in branch.outcomes(DAY)]


def test_an_erasure_while_a_day_is_written_is_not_undone(branch: Branch, monkeypatch: pytest.MonkeyPatch):
    stays, _ = approved(branch, "stays"), approved(branch, "goes")
    drop_erased, unerased = recorded.drop_erased, ["goes"]

    def erased_just_before(paths: Sequence[Path], gone: Callable[[], Collection[str]]) -> None:
        if unerased:
            as_read = paths[0].read_bytes()
            branch.erase(unerased.pop())
            paths[0].write_bytes(as_read)  # it looked for rows before this file stood there
        drop_erased(paths, gone)

    monkeypatch.setattr(recorded, "drop_erased", erased_just_before)

    assert branch.monitor(DAY).success
    assert [stays] == branch.decisions(DAY)["decision_id"].tolist()


def test_a_record_that_was_changed_is_left_out_and_found(branch: Branch):
    kept, changed = approved(branch, "c-1"), approved(branch, "c-2")
    branch.log.writer.close()
    _write(branch, "UPDATE records SET payload = zeroblob(200) WHERE record_id = :id", id=changed)

    result = branch.monitor(DAY)

    assert result.success, why(result)
    assert [kept] == branch.decisions(DAY)["decision_id"].tolist()
    assert not checked(result)["log_chain_verifies"]
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "log_chain_verifies"]
    assert changed in str(found.description)


def test_recorded_features_that_the_table_code_does_not_give_are_found(branch: Branch, monkeypatch: pytest.MonkeyPatch):
    approved(branch, "c-1")
    assert branch.monitor(DAY).success
    path = decisions_file(branch.folder, branch.settings.clock()().date())
    table = pq.ParquetFile(path).read()
    place = table.column_names.index("feature.annual_income")
    changed = table.set_column(place, "feature.annual_income", pa.array([np.nextafter(120_000.0, 0)]))
    monkeypatch.setattr(recorded.DayFile, "add", lambda self, row: None)
    monkeypatch.setattr(recorded.DayFile, "_flush", lambda self: self._writer.write_table(changed))

    result = branch.monitor(DAY)

    assert not checked(result)["recorded_features_are_reproduced"]
    assert "annual_income in the recorded day differs in 1 of 1" in said(result)


def test_a_file_that_is_being_written_when_its_process_dies_stays_as_it_was(tmp_path: Path):
    path, schema = tmp_path / "decisions" / "recorded" / f"{DAY}.parquet", pa.schema([("customer", pa.string())])
    with one_writer(tmp_path), DayFile(path, schema, {"records": "1"}) as file:
        file.add({"customer": "before"})
    before = path.read_bytes()

    if (child := os.fork()) == 0:
        with one_writer(tmp_path), DayFile(path, schema, {"records": "2"}) as file:
            for _ in range(20_000):
                file.add({"customer": "after"})
            os._exit(9)  # no `finally` runs, as under kill -9
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    assert path.with_name(f".{path.name}.unfinished").exists()
    assert before == path.read_bytes()
    assert {"records": "1"} == dict(notes_of(path))
    with one_writer(tmp_path):  # the lock went with the process
        assert not path.with_name(f".{path.name}.unfinished").exists()


def test_a_day_that_cannot_be_read_leaves_the_files_alone(branch: Branch):
    approved(branch, "c-1")
    assert branch.monitor(DAY).success
    before = branch.files()
    branch.settings.master_key_file().rename(branch.settings.home / "elsewhere")

    result = branch.monitor(DAY)

    assert "the decision log cannot be read" in why(result)
    assert before == branch.files()


def _write(branch: Branch, statement: str, **values: Any) -> None:
    engine = sa.create_engine(branch.settings.log_url("watched_loans"))
    with closing(engine.connect()) as connection, connection.begin():
        connection.execute(sa.text(statement), values)
    engine.dispose()


def test_a_sample_is_drawn_over_all_days_and_is_the_same_each_time(branch: Branch):
    for day in (DAY, NEXT):
        branch.set_clock(f"{day}T09:00")
        for number in range(8):
            branch.score(f"c-{number}")
    assert branch.monitor(DAY, EMPTY).success
    first, last = date.fromisoformat(DAY), date.fromisoformat(EMPTY)

    drawn = sample_of(branch.folder, first, last, 10)

    assert 10 == drawn["decision_id"].nunique()
    assert {DAY, NEXT} == {str(moment.date()) for moment in drawn["applied_at"]}
    assert drawn["decision_id"].tolist() == sample_of(branch.folder, first, last, 10)["decision_id"].tolist()
    assert 16 == len(sample_of(branch.folder, first, last, 300))
    assert 0 == len(sample_of(branch.folder, last, last, 300))
