"""Ways around the gate, tried on real files: none promotes, none is served, each is refused with its reason."""

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from cde_assets.cli import app
from cde_domain.digests import folder_digests, json_digest, write_json
from cde_domain.portfolio import load_portfolio
from cde_resources import portfolio as portfolio_resource
from cde_resources.artefacts import ArtefactIOManager
from cde_resources.mlflow import MlflowResource
from cde_resources.releases import ReleasesResource
from cde_serving.approvals import Approval, write_approval
from cde_serving.evidence import Pack, verify_pack
from cde_serving.follower import ReleaseFollower
from cde_serving.ledger import PromotionLedger
from cde_serving.signing import SigningKey
from tests.lender import Lender

NAME = "german_credit"


@pytest.fixture(scope="module")
def waiting_home(german_as_promoted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one champion, and another challenger that passed everything and waits for its promotion."""
    home = Path(shutil.copytree(german_as_promoted, tmp_path_factory.mktemp("ways") / "home"))
    with Lender(home, NAME) as lender:
        promote(lender, with_other_policy(lender.store.bundles))
        assert lender.run("evaluation", "compliance_report", "model_card", "evidence_pack").success
    return home


@pytest.fixture
def lender(waiting_home: Path, tmp_path: Path) -> Iterator[Lender]:
    """The lender of a copy of that home, to be cheated."""
    with Lender(Path(shutil.copytree(waiting_home, tmp_path / "home")), NAME) as lender:
        yield lender


def with_other_policy(bundles: Path) -> Path:
    """The champion's bundle under a stricter policy: another bundle."""
    (champion,) = bundles.iterdir()
    staging = Path(shutil.copytree(champion, bundles / "staging"))
    policy = staging / "policy.yaml"
    policy.write_text(policy.read_text(encoding="utf-8") + "# stricter\n", encoding="utf-8")
    manifest = json.loads((staging / "manifest.json").read_text(encoding="utf-8"))
    (staging / "manifest.json").unlink()
    manifest["files"] = folder_digests(staging)
    write_json(staging / "manifest.json", manifest)
    return staging.rename(bundles / json_digest(manifest))


def releases(lender: Lender) -> ReleasesResource:
    """The lender's keys and folders."""
    return ReleasesResource.of(lender.settings, NAME)


def promote(lender: Lender, bundle: Path) -> None:
    """Make a bundle champion with the platform's key."""
    entries = lender.ledger.entries()
    lender.ledger.append(
        action="promote",
        portfolio=NAME,
        bundle=bundle.name,
        expected_previous=entries[-1].bundle,
        evidence=entries[-1].evidence,
        details=entries[-1].details,
        key=releases(lender).signer(),
        by="test",
    )


def pack_of(lender: Lender) -> Path:
    """The folder of the challenger's evidence pack."""
    report = json.loads((lender.settings.home / "artefacts" / NAME / "evidence_pack.json").read_text())
    return lender.store.evidence / report["digest"]


def verified(lender: Lender) -> Pack:
    """The challenger's evidence pack."""
    return verify_pack(pack_of(lender), releases(lender).trusted())


def assert_not_promoted(lender: Lender, *told: str) -> None:
    """Promoting fails with these words, and the ledger does not change by a byte."""
    before = lender.ledger.path.read_bytes() if lender.ledger.path.exists() else None
    run = lender.run("champion_model")
    assert not run.success
    said = run.failures["champion_model"]
    for words in told:
        assert words in said
    assert before == (lender.ledger.path.read_bytes() if lender.ledger.path.exists() else None)


def assert_still_served(lender: Lender, champion: str) -> None:
    """A service that starts now loads the old champion."""
    current = lender.store.current()
    assert current is not None
    assert champion == current.digest


@pytest.fixture
def champion(lender: Lender) -> str:
    """The bundle that answers before anything is tried."""
    return lender.ledger.entries()[-1].bundle


def test_without_any_cheating_the_challenger_is_promoted(lender: Lender, champion: str) -> None:
    """The control: what is refused below is refused for its own reason."""
    pack = verified(lender)
    assert lender.run("champion_model").success

    entry = lender.ledger.entries()[-1]

    assert ("promote", champion, pack.digest) == (entry.action, entry.previous, entry.evidence)
    assert pack.manifest.model_digest == entry.details["model_digest"]
    assert_still_served(lender, entry.bundle)


# The evidence pack


def test_the_pack_holds_what_the_model_was_judged_by(lender: Lender) -> None:
    pack = verified(lender)
    made = {file.path: file.asset for file in pack.manifest.files}
    assert made["reports/evaluation.json"] == "evaluation"
    assert {"checks.json", "model_card.md", "reports/fairness_report.json"} <= made.keys()
    assert {"loan_book", "training_set", "holdout_set"} == pack.manifest.data.keys()
    discriminates = next(result for result in pack.checks if result.check == "discriminates")
    assert discriminates.passed
    assert discriminates.blocking
    assert discriminates.numbers["auc"] > discriminates.numbers["floor"]
    assert discriminates.sha256 == pack.manifest.made_from["evaluation"].sha256


def edit(path: Path) -> None:
    """Change one digit."""
    path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1))


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def sign_with_another_key(pack: Path) -> None:
    """A new manifest, truly signed by a stranger."""
    manifest = json.loads((pack / "manifest.json").read_text())
    stranger = SigningKey.generate()
    write_json(pack / "signature.json", {"key": stranger.public.id, "signature": stranger.sign("evidence", manifest)})


def cover_up(pack: Path) -> None:
    """Edit a report, and the manifest so that it agrees."""
    edit(pack / "reports" / "evaluation.json")
    manifest = json.loads((pack / "manifest.json").read_text())
    digests = folder_digests(pack)
    for file in manifest["files"]:
        file["sha256"] = digests[file["path"]]
    write_json(pack / "manifest.json", manifest)


def link(pack: Path) -> None:
    """Replace a report by a link to it."""
    report = pack / "reports" / "evaluation.json"
    report.symlink_to(report.rename(pack.parent / "evaluation.json"))


TAMPERED: list[tuple[str, Callable[[Path], object], str]] = [
    ("edited report", lambda pack: edit(pack / "reports" / "evaluation.json"), "evaluation.json was changed"),
    ("edited checks", lambda pack: edit(pack / "checks.json"), "checks.json was changed"),
    ("added file", lambda pack: (pack / "reports" / "better.json").write_text("{}"), "better.json was added"),
    ("removed file", lambda pack: (pack / "reports" / "fairness_report.json").unlink(), "report.json is missing"),
    ("linked file", link, "evaluation.json is a link"),
    ("truncated manifest", lambda pack: truncate(pack / "manifest.json"), "manifest.json is truncated"),
    ("no manifest", lambda pack: (pack / "manifest.json").unlink(), "manifest.json is missing"),
    ("no signature", lambda pack: (pack / "signature.json").write_text("[]"), "signature.json holds no signature"),
    ("covered up", cover_up, "manifest.json bears a signature that does not match"),
    ("signed by a stranger", sign_with_another_key, "manifest.json is signed with the key"),
    ("no pack", shutil.rmtree, "manifest.json is missing"),
]


@pytest.mark.parametrize(("tamper", "told"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED])
def test_a_changed_pack_promotes_nothing_and_the_reason_names_the_file(
    lender: Lender, champion: str, tamper: Callable[[Path], object], told: str
) -> None:
    tamper(pack_of(lender))
    assert_not_promoted(lender, "evidence_pack: ", told)
    assert_still_served(lender, champion)


def test_older_evidence_in_the_place_of_the_newer_promotes_nothing(lender: Lender, champion: str) -> None:
    older = lender.store.evidence / lender.ledger.entries()[0].evidence
    newer = pack_of(lender)
    shutil.rmtree(newer)
    shutil.copytree(older, newer)
    assert_not_promoted(lender, f"evidence_pack: its folder holds other evidence ({older.name[:12]})")
    assert_still_served(lender, champion)


def test_evidence_older_than_a_report_promotes_nothing(lender: Lender, champion: str) -> None:
    assert lender.run("explanation_report").success
    assert_not_promoted(lender, "model_card: was made from another explanation_report")
    assert_still_served(lender, champion)


def test_evidence_is_good_for_one_promotion(lender: Lender, champion: str) -> None:
    assert lender.run("champion_model").success
    lender.store.roll_back(None, key=releases(lender).signer(), by="person:jane")
    assert_not_promoted(lender, "ledger: this evidence was used for entry 3")
    assert_still_served(lender, champion)


# The event log


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


# The model


def test_a_swapped_model_file_promotes_nothing(lender: Lender, champion: str) -> None:
    model = verified(lender).manifest.model_digest
    values = lender.settings.portfolio_home(NAME) / "models" / model / "served" / "trees" / "leaf_value.npy"
    content = values.read_bytes()
    values.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert_not_promoted(lender, f"the files of model {model[:12]} have the digest")
    assert_still_served(lender, champion)


def test_a_bundle_that_was_changed_before_its_promotion_promotes_nothing(lender: Lender, champion: str) -> None:
    bundle = lender.ledger.entries()[0].bundle  # of the same model and policy as the challenger
    policy = lender.store.bundles / bundle / "policy.yaml"
    policy.write_bytes(policy.read_bytes() + b"\n")
    assert_not_promoted(lender, f"bundle {bundle[:12]}: policy.yaml is not the file that was released")
    assert_still_served(lender, champion)


def test_a_bundle_that_was_changed_after_its_promotion_is_not_served(lender: Lender, champion: str) -> None:
    follower = ReleaseFollower(lender.store)
    follower.refresh()
    assert follower.serving is not None
    assert lender.run("champion_model").success
    policy = lender.store.bundles / lender.ledger.entries()[-1].bundle / "policy.yaml"
    policy.write_bytes(policy.read_bytes() + b"\n")
    follower.refresh()
    assert follower.serving.digest == champion
    assert "policy.yaml is not the file that was released" in str(follower.problem)


def test_a_policy_edited_after_it_was_judged_promotes_nothing(
    lender: Lender, champion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lending = load_portfolio(NAME)
    policy = tmp_path / "policy.yaml"
    policy.write_text(lending.policy_file.read_text().replace("approve_at: 0.8", "approve_at: 0.5"))
    changed = dataclasses.replace(lending, policy_file=policy)
    monkeypatch.setattr(portfolio_resource, "_loaded", lambda reference: changed)
    assert_not_promoted(lender, "evidence_pack: the portfolio's code or policy was changed since it was judged")
    assert_still_served(lender, champion)


def test_a_hand_moved_alias_in_mlflow_serves_nothing(lender: Lender, champion: str) -> None:
    registry = MlflowResource.of(lender.settings, NAME)
    before = lender.ledger.path.read_bytes()
    registry.client().create_model_version(NAME, source=str(lender.settings.home))
    registry.set_alias("champion", "2")
    assert before == lender.ledger.path.read_bytes()
    assert_still_served(lender, champion)


# The ledger


def write_line(lender: Lender, *, signer: SigningKey | None, **changes: object) -> None:
    """Append a line that promotes the first bundle again."""
    lines = lender.ledger.path.read_bytes().splitlines()
    last = json.loads(lines[-1])
    value = {name: field for name, field in last.items() if name != "signature"}
    value |= {"sequence": len(lines) + 1, "bundle": last["previous"], "previous": last["bundle"]}
    value |= {"previous_entry": json_digest(last), **changes}
    if signer:
        value["key"] = signer.public.id
        value["signature"] = signer.sign("ledger entry", value)
    with lender.ledger.path.open("ab") as file:
        file.write(json.dumps(value).encode() + b"\n")


def replay(lender: Lender) -> None:
    """Append the first line once more."""
    lines = lender.ledger.path.read_bytes().splitlines(keepends=True)
    lender.ledger.path.write_bytes(b"".join([*lines, lines[0]]))


FORGED: list[tuple[str, Callable[[Lender], object], str]] = [
    ("unsigned line", lambda lender: write_line(lender, signer=None), "line 3 is not signed"),
    (
        "stranger's line",
        lambda lender: write_line(lender, signer=SigningKey.generate()),
        "line 3 is signed with the key",
    ),
    (
        "stolen signature",
        lambda lender: write_line(lender, signer=None, signature="00" * 64),
        "line 3 bears a signature",
    ),
    ("replayed line", replay, "line 3 has the sequence number 1"),
]


@pytest.mark.parametrize(("forge", "told"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED])
def test_a_forged_ledger_line_promotes_nothing_and_is_not_served(
    lender: Lender, champion: str, forge: Callable[[Lender], object], told: str
) -> None:
    follower = ReleaseFollower(lender.store)
    follower.refresh()
    forge(lender)
    follower.refresh()
    assert follower.serving is not None
    assert follower.serving.digest == champion
    assert told in str(follower.problem)
    assert_not_promoted(lender, f"ledger: ledger.jsonl {told}")


def test_a_removed_ledger_does_not_make_the_challenger_the_first(lender: Lender) -> None:
    lender.ledger.path.unlink()
    assert_not_promoted(lender, "ledger: has 0 entries, but there was an entry 1")
    assert not lender.ledger.path.exists()


def test_of_two_racing_promotions_the_one_that_was_compared_with_another_champion_is_refused(lender: Lender) -> None:
    first = lender.store.bundles / lender.ledger.entries()[0].bundle
    promote(lender, with_third_policy(first))
    before = lender.ledger.entries()[-1].bundle
    assert_not_promoted(lender, "ledger: expected", f"to be promoted, but {before[:12]} is")
    assert_still_served(lender, before)


def with_third_policy(bundle: Path) -> Path:
    """One more bundle."""
    folder = bundle.parent.parent / "others"
    shutil.copytree(bundle, folder / bundle.name)
    other = with_other_policy(folder)
    policy = other / "policy.yaml"
    policy.write_text(policy.read_text() + "# still stricter\n")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"]["policy.yaml"] = folder_digests(other)["policy.yaml"]
    write_json(other / "manifest.json", manifest)
    return other.rename(bundle.parent / json_digest(manifest))


def die_while_promoting(home: Path) -> None:
    """Run the promotion in this process, which dies in the middle of the ledger's line."""

    def write_half(self: PromotionLedger, line: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(line[: len(line) // 2])
        os._exit(9)

    PromotionLedger._write = write_half  # type: ignore[method-assign]
    with Lender(home, NAME) as lender:
        lender.run("champion_model")


def test_a_run_killed_in_the_middle_of_its_promotion_promotes_nothing(lender: Lender, champion: str) -> None:
    run = multiprocessing.get_context("spawn").Process(target=die_while_promoting, args=(lender.settings.home,))
    run.start()
    run.join()
    assert run.exitcode == 9
    assert lender.ledger.path.read_bytes().endswith(b"\n") is False
    assert_still_served(lender, champion)
    assert lender.run("champion_model").success


# The approval


@pytest.fixture
def approver(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> SigningKey:
    """The portfolio wants an approval; Jane's public key is filed, and hers is returned."""
    wanting = dataclasses.replace(load_portfolio(NAME), promotion="approval_required")
    monkeypatch.setattr(portfolio_resource, "_loaded", lambda reference: wanting)
    key = SigningKey.generate()
    folder = lender.settings.approver_keys_folder()
    folder.mkdir(parents=True)
    (folder / "jane.pem").write_bytes(key.public.pem())
    (folder / "bob.pem").write_bytes(SigningKey.generate().public.pem())
    (folder / "platform.pem").write_bytes(releases(lender).signer().public.pem())
    return key


def approve(lender: Lender, key: SigningKey, *, name: str = "jane", days_ago: int = 0) -> Approval:
    """Approve the challenger's evidence for thirty days."""
    at = datetime.now(UTC) - timedelta(days=days_ago)
    approval = Approval.of(verified(lender), name=name, key=key, at=at, days=30)
    write_approval(lender.store.approvals, approval)
    return approval


def test_an_approved_challenger_is_promoted_and_the_ledger_names_the_approver(
    lender: Lender, approver: SigningKey
) -> None:
    approve(lender, approver)
    assert lender.run("champion_model").success
    assert lender.ledger.entries()[-1].details["approved_by"] == "jane"


def test_without_an_approval_nothing_is_promoted_and_the_command_is_told(
    lender: Lender, champion: str, approver: SigningKey
) -> None:
    assert_not_promoted(
        lender,
        "approval: nobody approved this evidence yet",
        f"cde approve german_credit --evidence {pack_of(lender).name}",
    )
    assert_still_served(lender, champion)


def approve_other_evidence(lender: Lender, key: SigningKey) -> None:
    """Approve the older pack, and file it under the newer one."""
    older = verify_pack(lender.store.evidence / lender.ledger.entries()[0].evidence, releases(lender).trusted())
    approval = Approval.of(older, name="jane", key=key, at=datetime.now(UTC), days=30)
    write_approval(lender.store.approvals, approval).rename(lender.store.approvals / f"{pack_of(lender).name}.json")


def prolong(lender: Lender, key: SigningKey) -> None:
    """Write a later end into an expired approval."""
    expired = approve(lender, key, days_ago=40)
    write_approval(
        lender.store.approvals, expired.model_copy(update={"valid_until": datetime.now(UTC) + timedelta(days=9)})
    )


UNAPPROVED: list[tuple[str, Callable[[Lender, SigningKey], object], str]] = [
    ("expired", lambda lender, key: approve(lender, key, days_ago=31), "it expired on"),
    ("not yet", lambda lender, key: approve(lender, key, days_ago=-2), "in the future"),
    ("prolonged", prolong, "it bears a signature that does not match"),
    ("other evidence", approve_other_evidence, "it approves other evidence"),
    (
        "the trainer's key",
        lambda lender, key: approve(lender, releases(lender).signer(), name="platform"),
        "it is signed with the platform's own key, and whoever trains cannot approve",
    ),
    ("a stranger's key", lambda lender, key: approve(lender, SigningKey.generate()), "which is not trusted"),
    (
        "another's name",
        lambda lender, key: approve(lender, key, name="bob"),
        "in the name of bob, but the key is jane's",
    ),
    (
        "truncated",
        lambda lender, key: truncate(write_approval(lender.store.approvals, approve(lender, key))),
        "its file is damaged",
    ),
]


@pytest.mark.parametrize(("cheat", "told"), [case[1:] for case in UNAPPROVED], ids=[case[0] for case in UNAPPROVED])
def test_an_approval_that_does_not_count_promotes_nothing(
    lender: Lender, champion: str, approver: SigningKey, cheat: Callable[[Lender, SigningKey], object], told: str
) -> None:
    cheat(lender, approver)
    assert_not_promoted(lender, "approval: ", told)
    assert_still_served(lender, champion)


# The commands


@pytest.fixture
def cde(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Give the `cde` command, in this process; returns its exit status and what it printed."""
    for name in ("CDE_PORTFOLIO", "DAGSTER_HOME"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("CDE_HOME", str(lender.settings.home))

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, result.output

    return run


Cde = Callable[..., tuple[int, str]]


def test_verify_evidence_answers_yes_no_and_misuse(lender: Lender, cde: Cde, tmp_path: Path) -> None:
    pack = Path(shutil.copytree(pack_of(lender), tmp_path / "sent by mail"))
    code, said = cde("verify-evidence", pack)
    assert (code, "verified" in said, pack_of(lender).name in said) == (0, True, True)

    edit(pack / "reports" / "evaluation.json")
    code, said = cde("verify-evidence", pack)
    assert code == 1
    assert "NOT verified: reports/evaluation.json was changed" in said

    assert cde("verify-evidence", tmp_path / "nowhere")[0] == 2
    assert cde("verify-evidence", pack, "--key", pack / "manifest.json")[0] == 2


def test_approve_signs_for_who_holds_an_approvers_key_only(
    lender: Lender, approver: SigningKey, cde: Cde, tmp_path: Path
) -> None:
    key = tmp_path / "jane.key"
    key.write_bytes(approver.pem())
    evidence = pack_of(lender).name
    given = ("approve", NAME, "--evidence", evidence, "--name", "jane", "--key")

    code, said = cde(*given, lender.settings.signing_key_file())
    assert (code, "whoever trains cannot approve" in said) == (1, True)
    assert cde(*given, key, "--evidence", "0" * 64)[0] == 2
    assert not lender.store.approvals.exists()

    assert cde(*given, key)[0] == 0
    assert lender.run("champion_model").success


def test_rollback_is_one_ledger_entry_and_the_alias_follows(lender: Lender, champion: str, cde: Cde) -> None:
    assert lender.run("champion_model").success

    code, said = cde("rollback", NAME, "--reason", "complaints")

    assert code == 0, said
    entry = lender.ledger.entries()[-1]
    assert (entry.sequence, entry.action, entry.bundle, entry.notes) == (4, "rollback", champion, ("complaints",))
    assert "alias champion follows to version 1" in said
    assert cde("rollback", NAME, "--to", champion[:12])[0] == 1


def test_why_not_tells_the_same_reason_as_the_refusal(lender: Lender, cde: Cde) -> None:
    edit(pack_of(lender) / "model_card.md")
    code, said = cde("why-not", NAME)
    assert code == 1
    assert "evidence_pack: model_card.md was changed. Materialise evidence_pack again." in said
