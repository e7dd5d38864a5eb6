"""`make loop`: with a real service and Dagster's daemon the loop closes unattended, and harm is stopped."""

import json
import re
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from cde_assets.loop.observer import stopping_checks
from cde_assets.loop.running import missing, summary
from tests.lender import run_cde

TEN_MINUTES = 600

CLOSED: dict[str, Any] = {
    "drift_began": "2025-07-08",
    "drift_noticed": "2025-07-11",
    "fires": 1,
    "challenger": "c" * 64,
    "champion_before": "a" * 64,
    "ramp": [0.05, 0.25, 0.5, 1.0],
    "champion": "c" * 64,
    "promoted_on": "2025-07-23",
    "stopped_by": "a guardrail",
    "seconds": 545,
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_loop_closes_and_harm_is_stopped(tmp_path: Path) -> None:
    """From an empty home to one line: each thing happened once, in order, and by whom it should."""
    done = run_cde(tmp_path, "loop", timeout=3500, COLUMNS="200")

    assert 0 == done.returncode, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"^THE LOOP CLOSED: .* fired 1x, .* ramp 5/25/50/100 %, .* stopped by", done.stdout, re.MULTILINE)
    kept = json.loads((tmp_path / "loop" / "timeline.json").read_text())
    facts = kept["summary"]
    assert (True, 1, [0.05, 0.25, 0.5, 1.0]) == (facts["everything_happened"], facts["fires"], facts["ramp"])
    assert facts["seconds"] < TEN_MINUTES, "on two cores that do nothing else"
    assert facts["drift_began"] <= facts["drift_noticed"] < facts["promoted_on"]
    assert facts["challenger"] == facts["champion"] != facts["champion_before"]
    told = [(one["who"], one["what"]) for one in kept["timeline"]]
    in_order = [
        ("the gate", "promote"),
        ("drift_report", "no alarm"),
        ("the world", "the applicants have changed"),
        ("drift_report", ""),
        ("sensor drift_retrains", "train_challenger"),
        ("experiment", "5%"),
        ("experiment", "25%"),
        ("experiment", "50%"),
        ("experiment", "100%"),
        ("the gate", "promote"),
        ("a person", "edits policy.yaml"),
    ]
    rest = iter(told)
    for who, what in in_order:
        assert any(one == who and what in said for one, said in rest), (
            f"{who}: {what} did not come in its place: {told}"
        )
    assert not [process for process in psutil.process_iter(["environ"]) if _works_in(process, tmp_path)]


def _works_in(process: psutil.Process, home: Path) -> bool:
    return str(home) in ((process.info["environ"] or {}).get("CDE_HOME") or "")


class TestWhatIsMissing:
    """Tests for `missing` and `summary`: exit status 0 only if everything happened."""

    def test_nothing_is_missing_of_a_loop_that_closed(self) -> None:
        """And one line says it."""
        assert [] == missing(CLOSED)
        assert 1 == len(summary(CLOSED).splitlines())
        assert "fired 1x" in summary(CLOSED)

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"drift_noticed": None}, "drift was noticed"),
            ({"fires": 0}, "fired once, not 0 times"),
            ({"fires": 2}, "fired once, not 2 times"),
            ({"ramp": [0.05, 0.25, 1.0]}, "ramped 5, 25, 50, 100 %"),
            ({"champion": None}, "the challenger became champion"),
            ({"champion": "a" * 64}, "the challenger became champion"),
            ({"champion": "d" * 64}, "the challenger became champion"),
            ({"stopped_by": None}, "the harmful change was stopped"),
        ],
    )
    def test_whatever_did_not_happen_is_named(self, changed: dict[str, Any], said: str) -> None:
        """None stands for a chapter that was not reached."""
        facts = {name: value for name, value in {**CLOSED, **changed}.items() if value is not None}

        (only,) = missing(facts)
        assert said in only


def test_without_a_loop_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    done = run_cde(tmp_path, "loop", "--look")

    assert (1, True) == (done.returncode, "Run: make loop" in done.stderr), done.stdout + done.stderr


@dg.asset
def loans() -> None: ...


@dg.asset
def crashed() -> None:
    raise MemoryError


@pytest.mark.parametrize(("passed", "blocking", "stopped"), [(False, True, 1), (False, False, 0), (True, True, 0)])
def test_the_gate_has_stopped_a_run_only_if_a_blocking_check_of_it_failed(
    passed: bool, blocking: bool, stopped: int
) -> None:
    """A run that ran out of memory was not stopped by anybody's judgement."""

    @dg.asset_check(asset=loans, blocking=blocking)
    def holds() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed)

    definitions = dg.Definitions(assets=[loans, crashed], asset_checks=[holds])
    job = definitions.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        run = job.execute_in_process(instance=instance, raise_on_error=False)

        assert stopped == len(stopping_checks(instance, run.run_id))
        assert not run.success
