"""`cde simulate-policy` and the asset `policy_simulation`, on recorded decisions of a home with promoted bundles."""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cde_assets.cli import app
from cde_assets.decisions.simulating import Asked, simulation_of
from cde_assets.definitions import build_definitions
from cde_assets.derived_rows import drop_customer_rows
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.release import load_bundle
from cde_serving.clock_file import write_instant
from cde_serving.kill_switch import turn
from cde_serving.settings import Settings
from tests.assets.branch import NAME as WATCHED
from tests.assets.branch import Branch
from tests.recorded import applicants, recorded, write_decisions, write_outcomes
from tests.serving.helpers import releases_in, wait_for
from tests.support import NAME, POLICY, REFERENCE, TinyLoans, write_tiny_bundle, write_tiny_loans

STRICTER = POLICY.replace('"1"', '"2"').replace("approve_at: 0.8", "approve_at: 0.9")
NOW = datetime(2026, 3, 20, tzinfo=UTC)
ROWS = 300


@dataclass
class Made:
    """A home in which 300 decisions of the first of two bundles are recorded; the other is the champion."""

    home: Path
    bundles: tuple[Path, Path]

    @property
    def engines(self) -> tuple[DecisionEngine, DecisionEngine]:
        first, second = (load_bundle(bundle, bundle.name).engine for bundle in self.bundles)
        return first, second


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    tiny = write_tiny_loans(tmp_path_factory.mktemp("lender"))
    folder = tmp_path_factory.mktemp("models")
    bundles = write_tiny_bundle(tiny, folder, seed=1), write_tiny_bundle(tiny, folder, seed=2)
    home = tmp_path_factory.mktemp("home")
    releases = releases_in(home / NAME)
    for bundle in bundles:
        releases.promote(bundle)
    matrix = applicants(ROWS, 6)
    engine = load_bundle(bundles[0], bundles[0].name).engine
    table = recorded(matrix, engine.decide_rows(matrix), bundle=bundles[0].name)
    write_decisions(home / NAME, table)
    granted = table[table["decision"] == "APPROVED"]
    write_outcomes(home / NAME, granted, [number % 10 != 0 for number in range(len(granted))])
    yield Made(home, bundles)
    sys.path.remove(str(tiny.folder))


@pytest.fixture
def cde(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """The command, on a day of March."""
    write_instant(tmp_path / "clock", NOW)
    monkeypatch.setenv("CDE_HOME", str(made.home))
    monkeypatch.setenv("CDE_PORTFOLIO", REFERENCE)
    monkeypatch.setenv("CDE_CLOCK_FILE", str(tmp_path / "clock"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["simulate-policy", *map(str, words)])
        return result.exit_code, result.output

    return run


def policy(folder: Path, text: str) -> Path:
    file = folder / "new.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def decisions(engine: DecisionEngine) -> np.ndarray:
    return np.array([decision.decision.value for decision in engine.decide_rows(applicants(ROWS, 6))])


class TestTheCommand:
    def test_the_policy_that_decided_changes_no_decision(self, cde: Callable, tmp_path: Path):
        code, told = cde(policy(tmp_path, POLICY))

        assert 0 == code, told
        assert "300 decisions of 2026-02-18 to 2026-03-19, 300 taken again, 0 change" in told
        assert "+0.00 pp (+0.00 to +0.00)" in told

    def test_another_policy_is_told_with_everybody_whom_it_concerns(self, made: Made, cde: Callable, tmp_path: Path):
        first, _ = made.engines
        stricter = DecisionEngine(first.portfolio, first.model, first.policy.model_copy(update={"approve_at": 0.9}))
        before, after = decisions(first), decisions(stricter)

        code, told = cde(policy(tmp_path, STRICTER), "--csv", tmp_path / "who.csv", "--html", tmp_path / "page.html")

        assert 0 == code, told
        who = pd.read_csv(tmp_path / "who.csv", dtype=str, keep_default_na=False)
        assert [f"{number:032x}" for number in np.flatnonzero(before != after)] == who["decision_id"].tolist()
        assert [*zip(before[before != after], after[before != after], strict=True)] == [
            *who[["from", "to"]].itertuples(index=False, name=None)
        ]
        assert {"the score lies between review_at 0.4 and approve_at 0.9"} == set(who["why"])
        assert not {"score", *(name for name in who if name.startswith("feature."))} & set(who)
        page = (tmp_path / "page.html").read_text()
        assert f"{(before == 'APPROVED').mean():.2%}".replace("%", " %") in page
        assert f"{(after == 'APPROVED').mean():.2%}".replace("%", " %") in page
        assert "http" not in page.replace("<!doctype html>", "")

    def test_days_that_were_never_read_are_told(self, made: Made, cde: Callable, tmp_path: Path):
        """Their decisions are missing, and a rate of half a month is not that of the month."""
        code, told = cde(policy(tmp_path, POLICY), "--from", "2026-02-17", "--to", "2026-03-20")

        assert 0 == code, told
        assert "days are not recorded and were passed over: 2026-02-17" in told

    def test_an_id_is_told_whole_on_a_narrow_screen(
        self, cde: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """To be given to `cde replay`."""
        monkeypatch.setenv("COLUMNS", "80")

        _, told = cde(policy(tmp_path, STRICTER))

        assert len(re.findall(r"^[0-9a-f]{32} ", told, re.MULTILINE)) > 1

    def test_another_model_decides_with_its_own_policy(self, made: Made, cde: Callable, tmp_path: Path):
        first, second = made.engines
        changed = int((decisions(first) != decisions(second)).sum())

        code, told = cde("--bundle", made.bundles[1].name[:10])

        assert 0 == code, told
        assert f"300 taken again, {changed} change" in told
        assert "by the scores of the other model" in told

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            (POLICY.replace("0.8", "1.8"), "approve_at: Input should be less than 1"),
            (POLICY.replace("0.4", "0.95"), r"review_at (0.95) must not exceed approve_at (0.8)"),
            (POLICY.replace("below: 350", "below: many"), "rules.0.when.below: Input should be a valid number"),
            (POLICY.replace("review_at", "reviewed_at"), "reviewed_at: Extra inputs are not permitted"),
            (POLICY.replace("feature: bureau_score", "feature: shoe_size"), "there is no feature 'shoe_size'"),
            (POLICY + "  - code: {", "new.yaml: "),
            ("", "new.yaml: Input should be a valid dictionary"),
        ],
    )
    def test_a_bad_policy_is_refused_by_its_field(self, cde: Callable, tmp_path: Path, text: str, named: str):
        code, told = cde(policy(tmp_path, text))

        assert 2 == code
        assert named in " ".join(told.replace("│", " ").split())

    @pytest.mark.parametrize(
        ("words", "code", "named"),
        [
            (["--from", "2026-01-01", "--to", "2026-01-31"], 1, "no decisions of 2026-01-01 to 2026-01-31"),
            (["--from", "2026-03-02", "--to", "2026-03-01"], 2, "before it begins"),
            (["--from", "yesterday"], 2, "yesterday"),
            (["--csv", "/no/such/folder/who.csv"], 2, "there is no folder /no/such/folder"),
            (["--bundle", "0123"], 1, "'0123' names 0 of the bundles that were promoted"),
        ],
    )
    def test_what_cannot_be_simulated_is_told_with_the_way_out(
        self, cde: Callable, tmp_path: Path, words: list[str], code: int, named: str
    ):
        found, told = cde(policy(tmp_path, STRICTER), *words)

        assert code == found
        assert named in " ".join(told.replace("│", " ").split())

    def test_neither_policy_nor_bundle_is_misuse(self, cde: Callable):
        assert 2 == cde()[0]

    def test_a_record_that_is_not_reproduced_makes_the_answer_a_no(
        self, made: Made, cde: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        home = copied(made, tmp_path, monkeypatch)
        file = home / NAME / "decisions" / "recorded" / "2026-03-01.parquet"
        table = pq.read_table(file).to_pandas()
        table.loc[7, "decision"] = "REJECTED" if table.loc[7, "decision"] != "REJECTED" else "APPROVED"
        write_decisions(home / NAME, table)

        code, told = cde(policy(tmp_path, STRICTER))

        assert 1 == code
        assert "1 of 300 decisions are kept as they were: the bundle that decided gives another answer" in told

    def test_code_that_no_signed_log_names_is_not_run(
        self, made: Made, cde: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Whoever can write a table could otherwise choose which bundle, and so whose code, is loaded."""
        home = copied(made, tmp_path, monkeypatch)
        store = releases_in(home / NAME, home / "keys").store
        store.ledger.path.unlink()

        code, told = cde(policy(tmp_path, STRICTER))

        assert 1 == code
        assert "300 of 300 decisions are kept as they were: the bundle that decided is not here any more" in told


class TestTheAsset:
    def make(self, made: Made, clock: Path, config: dict[str, Any]) -> dg.ExecuteInProcessResult:
        write_instant(clock, NOW)
        settings = Settings(home=made.home, portfolio=REFERENCE, clock_file=clock, _env_file=None)
        job = build_definitions(REFERENCE, settings).resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            asset_selection=[dg.AssetKey([NAME, "policy_simulation"])],
            raise_on_error=False,
            run_config={
                "ops": {"policy_simulation": {"config": config}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
        )

    def metadata(self, result: dg.ExecuteInProcessResult) -> dict[str, Any]:
        (event,) = result.get_asset_materialization_events()
        return {name: value.value for name, value in event.materialization.metadata.items()}

    def test_it_shows_figures_and_files_and_no_value_of_an_applicant(self, made: Made, tmp_path: Path):
        result = self.make(made, tmp_path / "clock", {"policy": str(policy(tmp_path, STRICTER))})

        assert result.success
        found = self.metadata(result)
        report = json.loads(Path(found["report"]).with_suffix(".json").read_text())
        listed = pd.read_parquet(found["changed_decisions"])
        assert (ROWS, ROWS, len(listed)) == (found["decisions"], found["taken_again"], found["changed"])
        assert found["changed"] == report["changed"] > 0
        assert found["approval_rate_change"] < 0 < -found["expected_bad_rate_change"]
        known = next(figure for figure in report["figures"] if figure["name"] == "bad_rate")
        assert 0 < known["actual"]["value"] < 0.2
        written = json.dumps(report) + str(found) + listed.to_csv()
        values = applicants(ROWS, 6)[:, [0, 1, 3]].ravel()
        assert not [value for value in values if str(value) in written]

    def test_without_config_the_policy_on_disk_is_held_against_what_was_decided(self, made: Made, tmp_path: Path):
        result = self.make(made, tmp_path / "clock", {})

        assert result.success
        assert 0 == self.metadata(result)["changed"]

    def test_a_bad_policy_fails_the_run_by_its_field_and_writes_nothing(self, made: Made, tmp_path: Path):
        before = sorted(made.home.rglob("policy_simulation/*"))

        result = self.make(made, tmp_path / "clock", {"policy": str(policy(tmp_path, POLICY.replace("0.8", "8")))})

        assert not result.success
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        assert "approve_at: Input should be less than 1" in failure.step_failure_data.user_failure_data.description
        assert before == sorted(made.home.rglob("policy_simulation/*"))

    def test_an_erased_customer_leaves_the_list_of_those_who_change(self, made: Made, tmp_path: Path):
        found = self.metadata(self.make(made, tmp_path / "clock", {"policy": str(policy(tmp_path, STRICTER))}))
        file = Path(found["changed_decisions"])
        customer = pd.read_parquet(file)["customer"].iloc[0]

        lost = drop_customer_rows(file.parent, [customer], lambda tenant, identifier: identifier)

        assert {file: 1} == lost
        assert customer not in set(pd.read_parquet(file)["customer"])


def test_what_a_service_decided_is_reproduced_from_the_days_that_it_left(
    watched_loans: tuple[TinyLoans, Path], tmp_path: Path
):
    """From real answers over the decision log and the job `monitor`; while everything was stopped, nothing is."""
    purposes = ("car", "wedding", "other")
    with Branch(tmp_path, *watched_loans, "2026-03-02T09:00") as branch:
        answers = [
            branch.score(
                f"c-{number}",
                annual_income=12_000.0 + 4_000.0 * number,
                loan_amount=8_000.0,
                loan_purpose=purposes[number % 3],
                credit_history={"score": 320.0 + 9.0 * number, "accounts": [{"balance": 900.0}]}
                if number % 5
                else None,
                gender="female" if number % 2 else "male",
            )
            for number in range(60)
        ]
        asyncio.run(turn(branch.log, WATCHED, "stop_auto", by="person:officer", clock=branch.settings.clock()))
        wait_for(lambda: branch.scorer.switch.stopped, 5)
        answers.append(branch.score("c-60", annual_income=120_000.0, loan_amount=9_000.0))
        branch.tell(
            next(one["decision_id"] for one in answers if one["decision"] == "APPROVED"), "defaulted", "2026-03-02"
        )
        assert branch.monitor("2026-03-02").success
        branch.set_clock("2026-06-01T00:00")

        def simulated(text: str) -> dict[str, Any]:
            asked = Asked(date(2026, 3, 1), date(2026, 3, 31), policy(tmp_path, text))
            now = branch.settings.clock()()
            return simulation_of(asked, branch.portfolio, branch.releases.store, now).report

        same, stricter = simulated(POLICY), simulated(STRICTER)

    assert {"AUTOMATIC_DECISIONS_STOPPED": 1} == same["kept"] == stricter["kept"]
    assert (61, 60, 0) == (same["decisions"], same["taken_again"], same["changed"])
    assert stricter["changed"] > 0
    assert {"male", "female"} == {row["group"] for row in same["fairness"]}
    known = next(figure for figure in same["figures"] if figure["name"] == "bad_rate")
    assert (1.0, 1) == (known["actual"]["value"], known["actual"]["rows"])


def copied(made: Made, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the home for a test that damages it."""
    home = folder / "copy"
    shutil.copytree(made.home, home)
    keys = made.home / "keys"
    if keys.exists():
        monkeypatch.setenv("CDE_VERIFY_KEY", str(home / "keys" / "signing.pub"))
    monkeypatch.setenv("CDE_HOME", str(home))
    return home
