"""What starts and promotes by itself passes the same gate as a person's command."""

import json
import shutil
from pathlib import Path

import dagster as dg

from cde_assets.experiments.barred import barred
from cde_domain.digests import folder_digests, json_digest, write_json
from cde_domain.portfolio import load_portfolio
from cde_serving.experiments import Participant
from cde_serving.signing import SigningKey
from tests.lender import Lender, Run
from tests.waiting import NAME, Cde, approve, assert_still_served, edit, examined, promote, releases

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


BREACH = "share approved: +0.546 (+0.364 to +0.632), beyond the 0.2 that is tolerated"
ANOTHER = b"version: another\n"


def stopped(
    lender: Lender, policy: bytes, *, name: str = "summer", by: str = "dagster:run", reason: str = BREACH
) -> Path:
    """An experiment with another model under a policy has ended; the bundle that was in it."""
    bundle = under_policy(lender.store.bundles, policy)
    log, key = lender.store.experiments, releases(lender).signer()
    challenger = Participant(bundle=bundle.name, evidence=lender.ledger.entries()[-1].evidence)
    log.start(name, portfolio=NAME, challenger=challenger, weight=0.05, by=by, key=key, compared_with=1)
    log.stop(by=by, key=key, reason=reason)
    return bundle


def under_policy(bundles: Path, policy: bytes) -> Path:
    """The champion's bundle with another model, and this policy."""
    staging = Path(shutil.copytree(next(bundles.glob("?" * 64)), bundles / "staging"))
    (staging / "policy.yaml").write_bytes(policy)
    (staging / "model" / "another").write_text("model", encoding="utf-8")
    manifest = json.loads((staging / "manifest.json").read_text(encoding="utf-8"))
    (staging / "manifest.json").unlink()
    manifest["files"] = folder_digests(staging)
    write_json(staging / "manifest.json", manifest)
    target = bundles / json_digest(manifest)
    shutil.rmtree(target, ignore_errors=True)
    return staging.rename(target)


def own_policy() -> bytes:
    """The policy of the latest challenger, which the champion does not have."""
    return load_portfolio(NAME).policy_file.read_bytes()


def test_a_policy_that_a_guardrail_stopped_does_not_return_with_the_next_training(lender: Lender, cde: Cde) -> None:
    """Its bundle is another one, its harm the same; a person may start it all the same."""
    stopped(lender, own_policy())

    assert lender.run(ASSET).success

    why = str(said(lender)["why"])
    assert said(lender)["started"] is False
    assert "the policy that a guardrail stopped in summer (share approved: +0.546" in why
    assert "cde experiment start NAME --challenger latest" in why
    assert ["start", "stop"] == [entry.action for entry in lender.store.experiments.entries()]
    assert 0 == cde("experiment", "start", "autumn", "--challenger", "latest", "--weight", 0.05, "--portfolio", NAME)[0]


def test_a_policy_whose_experiment_ended_for_another_reason_may_be_tried_again(lender: Lender) -> None:
    """It was promoted, its champion replaced, nothing shown; or a person ended it, who can keep it away as well."""
    for number, (by, reason) in enumerate(
        [
            ("jane", BREACH),
            ("dagster:run", "promoted by entry 2 of the ledger"),
            ("dagster:run", "the champion that it was compared with decides no longer"),
            ("dagster:run", "nothing was shown in 180 days; 0.0 days at this weight, of 3 needed"),
            ("dagster:run", "nothing was promoted in 180 days"),
        ]
    ):
        stopped(lender, own_policy(), name=f"summer-{number}", by=by, reason=reason)

        assert barred(lender.store, load_portfolio(NAME)) is None


def test_a_policy_is_barred_for_its_own_harm_alone_and_as_long_as_the_champion_has_another(lender: Lender) -> None:
    """Where the bundle that was stopped is damaged, nobody knows its policy: a doubt is a no."""
    edited = stopped(lender, ANOTHER)
    assert barred(lender.store, load_portfolio(NAME)) is None

    (edited / "policy.yaml").write_bytes(b"version: edited\n")
    assert "may have, since bundle" in str(barred(lender.store, load_portfolio(NAME)))

    bundle = stopped(lender, own_policy(), name="winter")
    promote(lender, bundle)
    assert barred(lender.store, load_portfolio(NAME)) is None


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
