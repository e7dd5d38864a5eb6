"""What starts and promotes by itself passes the same gate as a person's command."""

import dagster as dg

from cde_domain.digests import folder_digests
from cde_serving.signing import SigningKey
from tests.lender import Lender, Run
from tests.waiting import NAME, Cde, approve, assert_still_served, edit, examined, promote

ASSET = "challenger_experiment"


def said(lender: Lender) -> dict[str, object]:
    """What the asset said of itself last."""
    event = lender.instance.get_latest_materialization_event(dg.AssetKey([NAME, ASSET]))
    assert event is not None
    materialization = event.asset_materialization
    assert materialization is not None
    return {name: value.value for name, value in materialization.metadata.items()}


def refused(run: Run, lender: Lender, *told: str) -> None:
    """The run failed with these words, and nothing was signed."""
    assert not run.success
    for words in told:
        assert words in run.failures[ASSET]
    assert () == lender.store.experiments.entries()


def test_a_judged_challenger_gets_its_first_customers_once(lender: Lender, champion: str) -> None:
    """One customer in twenty, on its evidence, with a plan; asked again while it runs, nothing starts."""
    assert lender.run(ASSET).success
    started = said(lender)
    (entry,) = lender.store.experiments.entries()

    assert started["started"] is True
    assert (entry.weight, entry.compared_with) == (0.05, examined(lender).compared_with)
    assert entry.challenger is not None
    assert entry.challenger.bundle == examined(lender).bundle
    assert folder_digests(lender.store.bundles / entry.challenger.bundle)
    assert isinstance(started["plan/to_detect"], int)
    assert_still_served(lender, champion)

    assert lender.run(ASSET).success
    assert said(lender)["why"] == f"{entry.experiment} runs, and one runs at a time"
    assert (entry,) == lender.store.experiments.entries()


def test_a_challenger_that_was_stopped_is_not_tried_again(lender: Lender, cde: Cde) -> None:
    """Training the same model twice must not bring back the harm; a person may."""
    assert lender.run(ASSET).success
    assert 0 == cde("experiment", "stop", "--reason", "harm", "--portfolio", NAME)[0]

    assert lender.run(ASSET).success

    assert said(lender)["started"] is False
    assert "(harm); start it again with cde experiment" in str(said(lender)["why"])
    assert ["start", "stop"] == [entry.action for entry in lender.store.experiments.entries()]


def test_where_a_person_approves_no_experiment_starts_without(lender: Lender, approver: SigningKey) -> None:
    refused(lender.run(ASSET), lender, "no experiment was started", "cde approve")

    approve(lender, approver)

    assert lender.run(ASSET).success
    assert said(lender)["started"] is True


def test_changed_evidence_starts_no_experiment(lender: Lender) -> None:
    edit(lender.settings.home / "artefacts" / NAME / "evaluation.json")

    refused(lender.run(ASSET), lender, "evaluation.json is not the file that it was materialised as")


def test_a_challenger_that_was_compared_with_an_earlier_champion_starts_none(lender: Lender, champion: str) -> None:
    """Somebody promoted meanwhile, if only the same bundle once more: the comparison is of another entry."""
    promote(lender, lender.store.bundles / champion)

    refused(lender.run(ASSET), lender, "to be the last")


def test_only_the_challenger_that_won_is_promoted(lender: Lender, champion: str) -> None:
    """A promotion that was asked for one bundle does not promote another that is the latest by now."""
    asked = {"ops": {"champion_model": {"config": {"bundle": "f" * 64}}}}
    job = lender.definitions.resolve_job_def("promote_challenger")
    before = lender.ledger.path.read_bytes()

    result = job.execute_in_process(
        instance=lender.instance,
        asset_selection=[dg.AssetKey([NAME, "champion_model"])],
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, **asked},
        raise_on_error=False,
    )

    assert not result.success
    assert before == lender.ledger.path.read_bytes()
    assert_still_served(lender, champion)
    asked["ops"]["champion_model"]["config"]["bundle"] = str(examined(lender).bundle)
    assert job.execute_in_process(
        instance=lender.instance,
        asset_selection=[dg.AssetKey([NAME, "champion_model"])],
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, **asked},
        raise_on_error=False,
    ).success
    assert lender.ledger.entries()[-1].bundle != champion
