"""The reports on decisions in Dagster: real recorded tables, a promoted champion with its evidence, MLflow."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cde_assets.decisions.estimated import chunks_of
from cde_assets.decisions.reporting import champion_of, comparable
from cde_assets.definitions import build_definitions
from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.monitoring.live_fairness import fairness_alarms, group_rows, live_fairness
from cde_domain.decisions.monitoring.recorded import (
    OUTCOMES,
    decisions_file,
    decisions_schema,
    outcomes_file,
    read_decisions,
)
from cde_domain.decisions.monitoring.reference import Reference
from cde_domain.digests import json_bytes
from cde_domain.model.scoring_model import model_digest
from cde_domain.portfolio import load_portfolio
from cde_domain.release import Bundle
from cde_resources.mlflow import MlflowResource
from cde_resources.releases import ReleasesResource
from cde_serving.evidence import Enclosure, write_pack
from cde_serving.settings import Settings
from tests.assets.branch import Branch, checked
from tests.serving.helpers import Releases, releases_in
from tests.support import NAME, REFERENCE, TinyLoans, training_rows

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
REPORTS = ("drift_report", "estimated_performance", "live_performance")
NO_LOGS = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Run:
    """What a run of reports did: metadata by asset, and what each check said."""

    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, tuple[bool, str | None]] = field(default_factory=dict)


class Monitor:
    """A home with a champion, its recorded decisions and outcomes, and the reports on them."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / NAME
        self.settings = Settings(home=home, portfolio=REFERENCE, _env_file=None)
        self.releases: Releases = releases_in(self.folder)
        self.definitions = build_definitions(REFERENCE, self.settings)
        self.registry = MlflowResource.of(self.settings, NAME)

    def promote(self, bundle: Path, *, tracked: bool = False) -> Bundle:
        """Promote a bundle with the evidence that an evaluation on new rows gives, and a run in MLflow if asked."""
        self.releases.promote(bundle)
        champion = self.releases.store.load_bundle(bundle.name, NAME)
        engine = champion.engine
        matrix, repaid = training_rows(77)
        scores = engine.model.scores(matrix)
        decisions = decide_all(engine.portfolio.features, matrix, scores, engine.policy, engine.model)
        reference = Reference.of("holdout", repaid, scores, decisions, scores)
        self.training_run = self._training_run() if tracked else "none"
        reports = {
            "evaluation": {"reference": reference.as_json()},
            "challenger_model": {"mlflow_run_id": self.training_run},
        }
        model = model_digest(champion.folder / "model")
        pack = write_pack(
            self.releases.store.evidence,
            {f"reports/{name}.json": Enclosure(json_bytes(report), name, "run") for name, report in reports.items()},
            (),
            portfolio=NAME,
            model_digest=model,
            portfolio_code="c" * 64,
            created_at=datetime.now(UTC),
            run="run",
            commit=None,
            data={},
            made_from={},
            key=self.releases.key,
        )
        ledger = self.releases.store.ledger
        current = ledger.current()
        assert current is not None
        ledger.append(
            action="promote",
            portfolio=NAME,
            bundle=bundle.name,
            expected_sequence=current.sequence,
            evidence=pack.name,
            key=self.releases.key,
            by="test",
        )
        self.champion = champion
        return champion

    def _training_run(self) -> str:
        self.registry.create_experiment()
        client = self.registry.client()
        return str(client.create_run(client.get_experiment_by_name(NAME).experiment_id).info.run_id)

    def record(self, matrix: np.ndarray, repaid: np.ndarray | None = None) -> None:
        """Record decisions on applicants over the last days, and outcomes of those approved."""
        engine = self.champion.engine
        names = [feature.name for feature in engine.portfolio.features]
        scores = engine.model.scores(matrix)
        decisions = decide_all(engine.portfolio.features, matrix, scores, engine.policy, engine.model)
        for back in range(10):
            day = YESTERDAY - timedelta(days=back)
            rows = np.arange(back, len(matrix), 10)
            applied = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
            frame = pd.DataFrame(
                {
                    "decision_id": [f"d{row:06d}" for row in rows],
                    "tenant": "default",
                    "customer": [f"token-{row}" for row in rows],
                    "applied_at": applied,
                    "variant": "champion",
                    "about": None,
                    "bundle": self.champion.digest,
                    "model": model_digest(self.champion.folder / "model"),
                    "policy": "p",
                    "policy_version": "1",
                    "code": "c",
                    "decision": decisions[rows],
                    "decided_by": "model",
                    "score": scores[rows],
                    "reason_codes": [[]] * len(rows),
                    **{f"feature.{name}": matrix[rows, place] for place, name in enumerate(names)},
                }
            )
            shadow = frame.head(3).assign(variant="shadow", decision="REJECTED", about=frame["decision_id"].head(3))
            shadow["decision_id"] = "s" + shadow["decision_id"]
            table = pa.Table.from_pandas(pd.concat([frame, shadow]), schema=decisions_schema(names))
            _write(decisions_file(self.folder, day), table)
            if repaid is not None:
                granted = frame[frame["decision"] == "APPROVED"]
                outcome = np.where(repaid[granted.index.to_numpy() * 10 + back] == 1, "repaid", "defaulted")
                known = granted[["decision_id", "tenant", "customer", "applied_at"]].assign(
                    outcome=outcome, known_on=day, recorded_at=applied, source="route", corrections=0
                )
                table = pa.Table.from_pandas(known, schema=OUTCOMES, preserve_index=False)
                _write(outcomes_file(self.folder, day), table)

    def report(self, *assets: str) -> Run:
        """Materialise reports with their checks."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey([NAME, asset]) for asset in assets or REPORTS]
        result = job.execute_in_process(asset_selection=keys, run_config=NO_LOGS)
        run = Run()
        for event in result.get_asset_materialization_events():
            metadata = event.materialization.metadata
            run.metadata[event.asset_key.path[-1]] = {name: value.value for name, value in metadata.items()}
        for check in result.get_asset_check_evaluations():
            run.checks[check.check_name] = (check.passed, check.description)
        return run


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


@pytest.fixture
def monitor(lender: tuple[TinyLoans, Path], tmp_path: Path) -> Monitor:
    return Monitor(tmp_path)


def _applicants(rows: int = 1_200) -> tuple[np.ndarray, np.ndarray]:
    parts = [training_rows(seed) for seed in range(200, 200 + rows // 600)]
    return np.vstack([matrix for matrix, _ in parts]), np.concatenate([repaid for _, repaid in parts])


@pytest.mark.slow
def test_applicants_like_those_in_training_raise_no_alarm(monitor: Monitor, lender: tuple[TinyLoans, Path]):
    monitor.promote(lender[1])
    monitor.record(*_applicants())

    run = monitor.report()

    assert dict.fromkeys(run.checks, True) == {name: passed for name, (passed, _) in run.checks.items()}
    assert {
        "population_is_as_trained",
        "live_fairness_holds",
        "estimated_performance_holds",
        "live_performance_holds",
    } == run.checks.keys()
    for name in REPORTS:
        assert (YESTERDAY.isoformat(), 1_200, True, False, []) == tuple(
            run.metadata[name][key] for key in ("as_of", "decisions", "judged", "alarm", "alarms")
        )
    assert run.metadata["drift_report"]["drifted_features"] == []


def test_estimated_and_live_performance_are_shown_with_intervals_and_logged_by_the_day(
    monitor: Monitor, lender: tuple[TinyLoans, Path]
):
    monitor.promote(lender[1], tracked=True)
    monitor.record(*_applicants())

    run = monitor.report("estimated_performance", "live_performance")

    estimated, live = (run.metadata[name] for name in REPORTS[1:])
    assert 0.5 < estimated["auc_low"] < estimated["auc"] < estimated["auc_high"] < 1
    assert 0 < live["outcomes"] < live["decisions"] == 1_200
    assert live["accuracy_low"] < live["accuracy"] < live["accuracy_high"]
    history = monitor.registry.client().get_metric_history(monitor.training_run, "live_auc_of_applicants")
    assert [(live["auc_of_applicants"], int(YESTERDAY.strftime("%Y%m%d")))] == [
        (one.value, one.step) for one in history
    ]
    assert "token-1" not in str([estimated, live])


def test_applicants_who_changed_raise_an_alarm_that_names_what_changed(
    monitor: Monitor, lender: tuple[TinyLoans, Path]
):
    monitor.promote(lender[1])
    matrix, _ = _applicants()
    matrix[:, 0] *= 0.6
    monitor.record(matrix)

    run = monitor.report("drift_report")

    passed, said = run.checks["population_is_as_trained"]
    assert not passed
    assert "the feature annual_income has drifted" in str(said)
    assert run.metadata["drift_report"]["drifted_features"] == ["annual_income"]
    assert {"what", "said", "retrains"} == run.metadata["drift_report"]["alarms"][0].keys()
    assert run.checks["live_fairness_holds"][0]
    page = monitor.folder / "decisions" / "reports" / "drift_report" / f"{YESTERDAY}.html"
    link = str(run.metadata["drift_report"]["page"])
    assert link == f"{monitor.settings.pages_address()}/{page.relative_to(monitor.settings.home).as_posix()}"
    shown = page.read_text(encoding="utf-8")
    assert "PSI, limit by sample size" in shown
    assert "token-1" not in shown + str(run.metadata)


def test_features_that_no_applicant_has_any_more_are_alarms_with_a_page(
    monitor: Monitor, lender: tuple[TinyLoans, Path]
):
    monitor.promote(lender[1])
    matrix, _ = _applicants()
    matrix[:, 0], matrix[:, 1] = np.nan, np.inf
    monitor.record(matrix)

    run = monitor.report("drift_report")

    told = run.metadata["drift_report"]
    assert not run.checks["population_is_as_trained"][0]
    names = list(monitor.champion.engine.model.feature_names[:2])
    assert set(names) <= set(told["drifted_features"])
    assert told["known_or_unknown_on_page"] == names
    page = monitor.folder / "decisions" / "reports" / "drift_report" / f"{YESTERDAY}.html"
    assert str(told["page"]).endswith(page.name)
    assert names[0] in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_leaves_the_alarm(monitor: Monitor, lender: tuple[TinyLoans, Path]):
    monitor.promote(lender[1])
    matrix, _ = _applicants()
    matrix[:, 0] *= 0.6
    monitor.record(matrix)
    (monitor.folder / "decisions" / "reports" / "drift_report" / f"{YESTERDAY}.html").mkdir(parents=True)

    run = monitor.report("drift_report")

    assert not run.checks["population_is_as_trained"][0]
    assert run.metadata["drift_report"]["alarm"]
    assert run.metadata["drift_report"]["page"] == "not written (IsADirectoryError)"


def test_few_decisions_are_not_judged(monitor: Monitor, lender: tuple[TinyLoans, Path]):
    monitor.promote(lender[1])
    monitor.record(_applicants()[0][:60] * 100)

    run = monitor.report()

    assert [(False, False)] * 3 == [(run.metadata[name]["judged"], run.metadata[name]["alarm"]) for name in REPORTS]
    # By the bundle, sensors know a change of champion, also from reports that judge nothing.
    assert [monitor.champion.digest] * 3 == [run.metadata[name]["bundle"] for name in REPORTS]
    assert all(passed for passed, _ in run.checks.values())
    assert "60 decisions are too few to judge, 100 are needed" == run.metadata["drift_report"]["said"]


def test_loans_that_all_defaulted_are_an_alarm(monitor: Monitor, lender: tuple[TinyLoans, Path]):
    monitor.promote(lender[1])
    matrix, repaid = _applicants()
    monitor.record(matrix, np.zeros(len(repaid)))

    run = monitor.report("live_performance")

    told = run.metadata["live_performance"]
    assert not run.checks["live_performance_holds"][0]
    assert "live_bad_rate_not_as_promised" in {one["what"] for one in told["alarms"]}
    assert told["bad_rate"] == 1.0


def test_before_the_first_promotion_there_is_nothing_to_judge_and_no_failure(monitor: Monitor):
    run = monitor.report()

    assert ["nothing is promoted yet"] * 3 == [run.metadata[name]["said"] for name in REPORTS]


def test_a_champion_without_evidence_is_watched_by_its_features_and_the_report_says_so(
    monitor: Monitor, lender: tuple[TinyLoans, Path]
):
    monitor.promote(lender[1])
    monitor.record(*_applicants())
    entry = monitor.releases.store.ledger.current()
    assert entry is not None
    (monitor.releases.store.evidence / entry.evidence / "manifest.json").unlink()

    run = monitor.report("estimated_performance", "live_performance")

    assert all("the champion's evidence cannot be read" in run.metadata[name]["said"] for name in run.metadata)
    assert all(passed for passed, _ in run.checks.values())


def test_decisions_of_a_bundle_without_a_feature_are_not_called_drift(monitor: Monitor, lender: tuple[TinyLoans, Path]):
    monitor.promote(lender[1])
    matrix, _ = _applicants()
    monitor.record(matrix)
    champion = champion_of(ReleasesResource.of(monitor.settings, NAME))
    assert champion is not None
    decisions = read_decisions(monitor.folder, YESTERDAY, YESTERDAY)
    before = decisions.assign(bundle="older", **{"feature.bureau_score": np.nan})
    outage = decisions.assign(**{"feature.bureau_score": np.nan})

    assert len(decisions) == len(comparable(champion, pd.concat([decisions, before])))
    assert len(decisions) == len(comparable(champion, outage))


def test_chunks_are_whole_days_of_at_least_so_many_decisions():
    days = pd.Series(pd.to_datetime(["2026-03-01"] * 3 + ["2026-03-02"] * 2 + ["2026-03-03"] * 6 + ["2026-03-04"]))

    chunks = chunks_of(days.dt.date.to_numpy(), least=4)

    assert [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]] == [chunk.tolist() for chunk in chunks]


def test_live_decisions_are_judged_by_group_where_groups_are_collected():
    german = load_portfolio("german_credit")
    women, men = 300, 500
    decisions = pd.DataFrame(
        {
            "decision": ["APPROVED"] * 120
            + ["REJECTED"] * 180
            + ["APPROVED"] * 400
            + ["REJECTED"] * 100
            + ["REJECTED"],
            "protected.sex": ["female"] * women + ["male"] * men + [None],
            "protected.age": [None] * (women + men + 1),
        }
    )

    (result,) = found = live_fairness(german, decisions, min_ratio=0.8, false_alarm_rate=0.01)
    (alarm,) = fairness_alarms(found, 0.8)

    assert ("sex", 1) == (result.attribute, result.unknown_rows)
    assert "sex female: approved 0.50 times as often as male" in alarm.said
    assert not alarm.retrains
    rows = {row["group"]: row for row in group_rows(found)}
    low, high = rows["female"]["approval_interval"]
    assert low < 0.4 < high
    assert live_fairness(german, decisions[["decision"]], min_ratio=0.8, false_alarm_rate=0.01) == []


@pytest.mark.parametrize(("womens_income", "fair"), [(9_000.0, False), (120_000.0, True)])
def test_groups_are_watched_from_the_request_to_the_check_of_the_day(
    watched_loans: tuple[TinyLoans, Path], tmp_path: Path, womens_income: float, fair: bool
):
    with Branch(tmp_path, *watched_loans, "2026-03-02T09:00") as branch:
        for number in range(60):
            branch.score(f"w-{number}", gender="female", annual_income=womens_income, loan_amount=9_000.0)
            branch.score(f"m-{number}", gender="male", annual_income=120_000.0, loan_amount=9_000.0)
        branch.set_clock("2026-03-03T00:20")
        assert branch.monitor("2026-03-02").success

        result = branch.report("drift_report")

        assert fair is checked(result)["live_fairness_holds"]
        (made,) = [event.materialization for event in result.get_asset_materialization_events()]
        assert fair is not any(one["what"] == "adverse_impact_gender" for one in made.metadata["alarms"].value)
        assert "w-1" not in str(made.metadata)
