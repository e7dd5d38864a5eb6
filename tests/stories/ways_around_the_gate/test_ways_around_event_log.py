"""An event log that was led astray promotes nothing."""

from pathlib import Path

import dagster as dg
import pytest

from cde_resources.artefacts import ArtefactIOManager
from tests.lender import Lender
from tests.waiting import NAME, assert_not_promoted, assert_still_served, edit


def run_check(lender: Lender, result: dg.AssetCheckResult) -> None:
    """Let a run say something else about the evaluation's discrimination."""

    @dg.asset_check(asset=dg.AssetKey([NAME, "evaluation"]), name="discriminates", blocking=True)
    def check() -> dg.AssetCheckResult:
        return result

    job = dg.define_asset_job("check", selection=dg.AssetSelection.checks(check))
    definitions = dg.Definitions(asset_checks=[check], jobs=[job])
    definitions.resolve_job_def("check").execute_in_process(instance=lender.instance, raise_on_error=False)


def test_reports_made_with_their_checks_deselected_promote_nothing(lender: Lender, champion: str) -> None:
    assert lender.run_unchecked("explanation_report", "compliance_report", "model_card", "evidence_pack").success
    told = "was not run on what this challenger is made from"
    assert_not_promoted(lender, f"reasons_are_complete_and_faithful: {told}", f"evidence_pack/pack_verifies: {told}")
    assert_still_served(lender, champion)


@pytest.mark.parametrize("severity", [dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR])
def test_a_failed_check_promotes_nothing_however_mild_it_calls_itself(
    lender: Lender, champion: str, severity: dg.AssetCheckSeverity
) -> None:
    run_check(lender, dg.AssetCheckResult(passed=False, severity=severity, description="AUC 0.5"))
    assert_not_promoted(lender, "evaluation/discriminates: failed (AUC 0.5)")
    assert_still_served(lender, champion)


def test_a_check_that_failed_when_the_evidence_was_packed_promotes_nothing_later(lender: Lender, champion: str) -> None:
    run_check(lender, dg.AssetCheckResult(passed=False))
    assert lender.run("evidence_pack").success
    run_check(lender, dg.AssetCheckResult(passed=True))
    assert_not_promoted(lender, "evaluation/discriminates: is not recorded as passed in the evidence pack")
    assert_still_served(lender, champion)


def test_a_check_reported_as_passed_by_hand_promotes_nothing(lender: Lender, champion: str) -> None:
    run_check(lender, dg.AssetCheckResult(passed=False, description="AUC 0.5"))
    key = dg.AssetKey([NAME, "evaluation"])
    lender.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=key, check_name="discriminates", passed=True, metadata={})
    )
    assert_not_promoted(lender, "evaluation/discriminates: failed (AUC 0.5)")
    assert_still_served(lender, champion)


def test_a_report_materialised_by_hand_promotes_nothing(lender: Lender, champion: str) -> None:
    key = dg.AssetKey([NAME, "fairness_report"])
    event = lender.instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    lender.instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))
    assert_not_promoted(lender, "was made from another fairness_report than the rest of the evidence")
    assert lender.run("model_card", "evidence_pack").failures["evidence_pack"]
    assert_not_promoted(lender, "fairness_report: was reported by hand, not made by a run")
    assert_still_served(lender, champion)


def test_a_missing_report_promotes_nothing(lender: Lender, champion: str) -> None:
    lender.instance.wipe_assets([dg.AssetKey([NAME, "explanation_report"])])
    assert_not_promoted(lender, "explanation_report: was never materialised")
    assert_still_served(lender, champion)


def test_an_edited_report_promotes_nothing(lender: Lender, champion: str) -> None:
    edit(lender.settings.home / "artefacts" / NAME / "evaluation.json")
    assert_not_promoted(lender, "evaluation.json is not the file")
    assert "evidence_pack" not in lender.run("evidence_pack").made
    assert_still_served(lender, champion)


def test_a_report_that_holds_no_number_is_refused_by_name(tmp_path: Path) -> None:
    @dg.asset
    def evaluation() -> dict:
        return {"auc": float("nan")}

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [evaluation],
            instance=instance,
            raise_on_error=False,
            resources={"io_manager": ArtefactIOManager(folder=str(tmp_path))},
        )
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    assert "evaluation cannot be written as JSON" in str(failure.step_failure_data.user_failure_data.description)
