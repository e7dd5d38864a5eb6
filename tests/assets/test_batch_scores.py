"""`batch_scores`: a day's applications scored by the promoted champion, in Dagster, on real files."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cde_assets.definitions import BATCH_JOB, build_definitions
from cde_checks.decisions.batch import compare
from cde_serving.settings import Settings
from tests.serving.helpers import Releases, releases_in
from tests.support import NAME, REFERENCE, TinyLoans

DAY = "2026-03-01"


class Office:
    """A portfolio's home with a champion, and the job that scores a day."""

    def __init__(self, home: Path, releases: Releases) -> None:
        self.folder = home / NAME / "batch"
        self.releases = releases
        settings = Settings(home=home, portfolio=REFERENCE, _env_file=None)
        self.job = build_definitions(REFERENCE, settings).resolve_job_def(BATCH_JOB)

    def receive(self, frame: pd.DataFrame, ending: str = "parquet") -> Path:
        path = self.folder / "applications" / f"{DAY}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
        return path

    def score(self) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(
            partition_key=DAY,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )

    @property
    def scores(self) -> Path:
        return self.folder / "scores" / f"{DAY}.parquet"


@pytest.fixture
def office(lender: tuple[TinyLoans, Path], tmp_path: Path) -> Office:
    releases = releases_in(tmp_path / NAME)
    releases.promote(lender[1])
    return Office(tmp_path, releases)


def applications(rows: int = 40) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "customer_id": [f"c-{number}" for number in range(rows)],
            "annual_income": [20_000.0 + 2_000 * number for number in range(rows)],
            "loan_amount": 9_000.0,
            "loan_purpose": "car",
            "credit_history.score": [320.0 + 14 * number for number in range(rows)],
            "credit_history.accounts": [[{"balance": 1200.0}]] * rows,
        }
    )


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def checked(result: dg.ExecuteInProcessResult) -> list[bool]:
    return [evaluation.passed for evaluation in result.get_asset_check_evaluations()]


def why(result: dg.ExecuteInProcessResult) -> str:
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    return str(failed.step_failure_data.user_failure_data.description)


def test_a_day_is_scored_shown_and_compared_with_answers_one_by_one(office: Office):
    office.receive(applications())

    result = office.score()

    assert result.success
    assert [True] == checked(result)
    shown = metadata_of(result)
    assert 40 == shown["dagster/row_count"] == pq.read_metadata(office.scores).num_rows
    decisions = pq.read_table(office.scores)["decision"].to_pylist()
    assert decisions.count("APPROVED") / 40 == shown["approved_rate"] > 0
    assert "data:image/png;base64" in shown["scores"]
    assert "c-1" not in json.dumps({name: str(value) for name, value in shown.items() if name != "scores"})


def test_the_same_day_again_is_the_same_bytes(office: Office):
    office.receive(applications())
    assert office.score().success
    first = office.scores.read_bytes()

    assert office.score().success
    assert first == office.scores.read_bytes()


def test_a_day_without_applications_is_scored_to_no_rows(office: Office):
    office.receive(applications().head(0))

    result = office.score()

    assert result.success
    assert [True] == checked(result)
    assert (0, 0.0) == (metadata_of(result)["dagster/row_count"], metadata_of(result)["approved_rate"])


def test_a_day_whose_file_is_missing_or_bad_fails_and_leaves_the_scores_alone(office: Office):
    assert f"put one file at {office.folder / 'applications' / DAY}.parquet" in why(office.score())
    office.receive(applications())
    assert office.score().success
    before = office.scores.read_bytes()

    office.receive(applications().assign(loan_purpose="yacht"))

    assert "loan_purpose: the value must be a known category" in why(office.score())
    assert before == office.scores.read_bytes()
    office.receive(applications(), "csv")
    assert "two files of applications" in why(office.score())


def test_nothing_is_scored_before_the_first_promotion(lender: tuple[TinyLoans, Path], tmp_path: Path):
    office = Office(tmp_path, releases_in(tmp_path / NAME))
    office.receive(applications())

    assert "nothing is promoted yet" in why(office.score())


def test_a_changed_score_is_found_by_the_check(office: Office):
    path = office.receive(applications())
    assert office.score().success
    champion = office.releases.store.current()
    assert champion is not None
    rows = pq.read_table(office.scores).to_pylist()
    day = pd.Timestamp(DAY).date()

    assert (40, []) == compare(champion, path, day, rows)
    rows[3]["score"] += 1e-12
    rows[5]["reason_codes"] = ["OTHER"]
    assert (40, [4, 6]) == compare(champion, path, day, rows)
