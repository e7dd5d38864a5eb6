"""A model, bundle, policy or alias that was changed is neither promoted nor served."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from cde_checks.judgement import EVIDENCE, REPORTS
from cde_domain.governance.card import FILES as CARD_FILES
from cde_domain.portfolio import load_portfolio
from cde_resources import portfolio as portfolio_resource
from cde_resources.mlflow import MlflowResource
from cde_serving.follower import ReleaseFollower
from tests.lender import Lender
from tests.waiting import (
    NAME,
    assert_not_promoted,
    assert_still_served,
    verified,
)


def edit_last_byte(path: Path) -> None:
    """Flip a bit of the last byte."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_swapped_model_file_promotes_nothing(lender: Lender, champion: str) -> None:
    model = verified(lender).manifest.model_digest
    values = lender.settings.portfolio_home(NAME) / "models" / model / "served" / "trees" / "leaf_value.npy"
    edit_last_byte(values)
    assert_not_promoted(lender, f"the files of model {model[:12]} have the digest")
    assert_still_served(lender, champion)


@pytest.mark.parametrize("spoil", [edit_last_byte, Path.unlink], ids=["edited", "removed"])
@pytest.mark.parametrize("name", [*CARD_FILES.values(), "library", "learned_from"])
def test_what_lies_beside_the_model_is_what_was_judged(
    lender: Lender, champion: str, name: str, spoil: Callable[[Path], object]
) -> None:
    pack = verified(lender)
    folder = lender.settings.portfolio_home(NAME) / "models" / pack.manifest.model_digest
    card = name in CARD_FILES.values()
    path = folder / (name if card else pack.report("reports/challenger_model.json")[name]["file"])
    spoil(path)
    assert_not_promoted(lender, f"model_card: {name} beside the model is not" if card else f"{path.name} is not the")
    assert_still_served(lender, champion)


@pytest.mark.parametrize("spoil", [edit_last_byte, Path.unlink], ids=["edited", "removed"])
@pytest.mark.parametrize("name", [*REPORTS, EVIDENCE])
def test_a_report_whose_file_is_not_the_one_that_was_written_promotes_nothing(
    lender: Lender, champion: str, name: str, spoil: Callable[[Path], object]
) -> None:
    spoil(lender.settings.home / "artefacts" / NAME / f"{name}.json")
    assert_not_promoted(lender, f"{name}: {name}.json is not the file that it was materialised as")
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
