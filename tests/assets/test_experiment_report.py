"""Tests for the report on a running experiment as an asset, from real logs and recorded days."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from cde_assets.decisions.experiment_report import counted_in
from cde_domain.decisions.experiments.cohort import Step, Terms
from cde_domain.decisions.experiments.service import Counters
from cde_domain.decisions.monitoring.recorded import decisions_file
from cde_domain.decisions.variants import assigned
from cde_resources.releases import ReleasesResource
from cde_resources.service import counters_of
from cde_serving.experiments import Participant
from tests.assets.branch import NAME, Branch
from tests.experiments import Model, traffic
from tests.serving.helpers import EVIDENCE, SCORE
from tests.support import TinyLoans

BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
CHALLENGER, SHADOW = "b" * 64, "c" * 64


@pytest.fixture
def branch(watched_loans: tuple[TinyLoans, Path], tmp_path: Path) -> Iterator[Branch]:
    """A lender on the day on which an experiment starts, half and half."""
    with Branch(tmp_path / "home", *watched_loans, "2026-03-02T00:00:00") as branch:
        yield branch


def start(branch: Branch, weight: float = 0.5, shadow: bool = False) -> None:
    releases = ReleasesResource.of(branch.settings, NAME)
    releases.store().experiments.start(
        "autumn",
        portfolio=NAME,
        challenger=Participant(bundle=CHALLENGER, evidence=EVIDENCE),
        shadows=(Participant(bundle=SHADOW, evidence=EVIDENCE),) if shadow else (),
        weight=weight,
        by="test",
        key=releases.signer(),
        compared_with=1,
    )


def record(branch: Branch, days: int = 5, customers: int = 1500, **models: Model) -> pd.DataFrame:
    """Days of decisions as they are recorded; the frame of all of them."""
    champion = branch.releases.store.ledger.entries()[0].bundle
    of = Terms("autumn", 1, champion, CHALLENGER, (), (Step(BEGAN, 0.5),))
    frame = traffic(of, BEGAN, days - 0.01, customers, np.random.default_rng(1), **models)
    frame["bundle"] = np.where(frame["variant"] == "challenger", CHALLENGER, champion)
    write(branch, frame)
    return frame


def write(branch: Branch, frame: pd.DataFrame) -> None:
    for day, rows in frame.groupby(frame["applied_at"].dt.date):
        path = decisions_file(branch.folder, day)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path, index=False)


def report(branch: Branch, on: str = "2026-03-07T06:00:00") -> tuple[dict[str, Any], dict[str, bool], dict[str, str]]:
    """What the asset says of itself on a morning, and its checks."""
    branch.set_clock(on)
    result = branch.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=branch.instance,
        asset_selection=[dg.AssetKey([NAME, "experiment_report"])],
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    (event,) = result.get_asset_materialization_events()
    said = {name: value.value for name, value in event.materialization.metadata.items()}
    checks = {one.check_name: one for one in result.get_asset_check_evaluations()}
    return (
        said,
        {name: bool(one.passed) for name, one in checks.items()},
        {name: str(one.description) for name, one in checks.items()},
    )


def test_without_an_experiment_it_says_so(branch: Branch):
    said, passed, _ = report(branch)

    assert (said["verdict"], said["alarm"], said["as_of"]) == ("none", False, "2026-03-06")
    assert passed == {"assignment_is_as_declared": True, "guardrails_hold": True}


def test_an_experiment_without_harm_may_grow(branch: Branch):
    """What the UI and the sensors read, and two files to look at."""
    start(branch)
    record(branch, customers=4000)

    said, passed, _ = report(branch)

    assert (said["verdict"], said["next_weight"], said["entry"]) == ("ramp", 1.0, 1), said["said"]
    assert (said["alarm"], said["alarms"], said["judged"], said["decisions"]) == (False, [], True, 4000)
    assert passed == {"assignment_is_as_declared": True, "guardrails_hold": True}
    assert abs(said["approval_difference"]) < 0.05
    assert "skipped" in said["service"]
    assert said["guardrails"].startswith("![Differences beside what is tolerated](data:image/png;base64,")
    written = Path(said["path"])
    assert written == branch.folder / "decisions" / "reports" / "experiment_report" / "2026-03-06.json"
    assert json.loads(written.read_text())["judgement"]["verdict"] == "ramp"
    page = written.with_suffix(".html").read_text()
    assert "Verdict: ramp" in page
    assert "data:image/png;base64," in page


def test_a_harmful_challenger_is_an_alarm_and_a_failed_check(branch: Branch):
    start(branch)
    record(branch, challenger=Model(approves=0.97))

    said, passed, told = report(branch)

    assert said["verdict"] == "stop"
    assert said["alarm"] is True
    assert said["alarms"][0]["what"] == "approval"
    assert passed == {"assignment_is_as_declared": True, "guardrails_hold": False}
    assert told["guardrails_hold"].startswith("share approved: +0.3")


def test_customers_decided_by_the_wrong_variant_are_an_alarm(branch: Branch):
    start(branch)
    frame = record(branch)
    write(branch, frame.assign(variant="champion", bundle=branch.releases.store.ledger.entries()[0].bundle))

    said, passed, told = report(branch)

    assert said["verdict"] == "hold"
    assert [one["what"] for one in said["alarms"]] == ["assignment"]
    assert (
        "customers (0.0%) were first decided by the challenger, where 50.0% were declared" in said["alarms"][0]["said"]
    )
    assert passed["assignment_is_as_declared"] is False
    assert "by the champion were the challenger's" in told["assignment_is_as_declared"]


def test_the_report_is_about_the_days_that_are_over(branch: Branch):
    """Today's decisions count tomorrow; the weight holds until then."""
    start(branch)
    record(branch)

    said, *_ = report(branch, on="2026-03-04T12:00:00")

    assert said["as_of"] == "2026-03-03"
    assert said["decisions"] < 700
    assert "2.0 days at this weight, of 3 needed" in said["said"]


def test_nothing_of_a_customer_reaches_the_event_log_or_the_files(branch: Branch):
    start(branch)
    frame = record(branch, days=2, customers=300)

    said, *_ = report(branch)

    everything = str(said) + Path(said["path"]).read_text()
    assert not [token for token in frame["customer"] if token in everything]


def test_shadows_are_compared_beside_the_experiment(branch: Branch):
    """Those of a service: half of the answered decisions are turned round by a shadow."""
    start(branch, weight=0.0, shadow=True)
    answered = record(branch, customers=400)
    champion = branch.releases.store.ledger.entries()[0].bundle
    answered = answered.assign(variant="champion", bundle=champion)
    turned = np.array([assigned(token, "other", 0.5) == "challenger" for token in answered["customer"]])
    shadow = answered.assign(
        about=answered["decision_id"],
        decision_id="s" + answered["decision_id"],
        variant="shadow",
        bundle=SHADOW,
    )
    shadow.loc[turned, "decision"] = "MANUAL_REVIEW"
    write(branch, pd.concat([answered, shadow]))

    said, *_ = report(branch)

    assert said[f"disagreement_of_{SHADOW[:8]}"] == pytest.approx(turned.mean(), abs=0.03)
    assert said[f"shadow {SHADOW[:8]}"].startswith("![Where the shadow differs]")


def test_errors_and_slow_decisions_are_those_that_the_service_itself_counts(branch: Branch):
    before = counted(branch)
    for customer in ("c-1", "c-2", "c-3"):
        branch.score(customer)
    branch.scorer.close()  # nothing can be recorded any more, so that nothing is answered
    assert 503 == branch.client.post(SCORE, json=branch.portfolio.example).status_code

    new = counted(branch).since(before)

    assert (4, 1) == (new.requests, new.failed)
    assert (0, 0) == (new.timed, new.slow)  # all were the champion's
    assert counters_of(branch.client.get("/metrics").text, "another portfolio", 1000.0) is None


def test_what_a_service_counted_before_an_experiment_is_no_evidence_about_it():
    """The process has run for months; its first report on the experiment only marks where its counters stood."""
    long_before = Counters("one", 20_000, 1_500, 900, 900)
    of_summer = {"experiment": "summer", "counters": asdict(long_before), "counted": asdict(long_before)}
    now = Counters("one", 21_000, 1_510, 920, 910)

    first = counted_in("autumn", now, [{"experiment": None}, of_summer])
    assert first == Counters("one", 0, 0, 0, 0)

    told = {"experiment": "autumn", "counters": asdict(now), "counted": asdict(first)}
    second = counted_in("autumn", Counters("one", 21_500, 1_513, 950, 911), [{"service": "not up"}, told, of_summer])
    assert second == Counters("one", 500, 3, 30, 1)

    told = {"experiment": "autumn", "counters": {**asdict(now), "process": "one"}, "counted": asdict(second)}
    restarted = counted_in("autumn", Counters("two", 100, 2, 10, 0), [told, of_summer])
    assert restarted == Counters("two", 600, 5, 40, 1)


def counted(branch: Branch, slow_after_ms: float = 5000.0) -> Counters:
    counters = counters_of(branch.client.get("/metrics").text, NAME, slow_after_ms)
    assert counters is not None
    return counters
