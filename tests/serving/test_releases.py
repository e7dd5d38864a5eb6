"""Tests for `cde_serving.releases` and `cde_serving.follower`."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import rfc8785

from cde_domain.digests import folder_digests, json_digest, write_json
from cde_domain.release import BundleError
from cde_serving.follower import ReleaseFollower
from cde_serving.releases import RollbackError, store_to_serve
from cde_serving.signing import SigningKey
from tests.serving.helpers import EVIDENCE, Releases, releases_in, wait_for
from tests.support import NAME

Bundles = tuple[Path, Path]


@pytest.fixture
def follower(releases: Releases) -> Iterator[ReleaseFollower]:
    """A follower of the releases, started."""
    follower = ReleaseFollower(releases.store)
    follower.start()
    yield follower
    follower.close()


def served(follower: ReleaseFollower) -> str | None:
    """The digest that is served."""
    return follower.serving.digest if follower.serving else None


def append(releases: Releases, bundle: str, portfolio: str = NAME) -> None:
    """Promote a bundle that may not be there."""
    releases.store.ledger.append(
        action="promote",
        portfolio=portfolio,
        bundle=bundle,
        expected_sequence=0,
        evidence=EVIDENCE,
        key=releases.key,
        by="test",
    )


def tamper(releases: Releases, digest: str) -> None:
    """Add a byte to a bundle's policy."""
    policy = releases.store.bundles / digest / "policy.yaml"
    policy.write_bytes(policy.read_bytes() + b"\n")


def with_changed_code(bundle: Path, old: str, new: str) -> Path:
    """A bundle released with other portfolio code."""
    staging = Path(shutil.copytree(bundle, bundle.parent / "staging"))
    code = staging / "portfolio" / "__init__.py"
    code.write_text(code.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    manifest = json.loads((staging / "manifest.json").read_text(encoding="utf-8"))
    (staging / "manifest.json").unlink()
    manifest["files"] = folder_digests(staging)
    write_json(staging / "manifest.json", manifest)
    return staging.rename(bundle.parent / json_digest(manifest))


def test_nothing_is_current_before_the_first_promotion(releases: Releases) -> None:
    """An empty home serves nothing, and that is no error."""
    assert releases.store.current() is None


def test_the_promoted_bundle_is_current(releases: Releases, bundles: Bundles) -> None:
    """The ledger names the bundle, and it is loaded verified."""
    releases.promote(bundles[0])
    digest = releases.promote(bundles[1])

    current = releases.store.current()

    assert current is not None
    assert digest == current.digest


def test_a_changed_bundle_is_not_loaded(releases: Releases, bundles: Bundles) -> None:
    """One byte more in the policy is another bundle than the one promoted."""
    tamper(releases, releases.promote(bundles[0]))

    with pytest.raises(BundleError, match=r"policy\.yaml"):
        releases.store.current()


def test_a_bundle_promoted_for_another_portfolio_is_not_loaded(releases: Releases, bundles: Bundles) -> None:
    """A bundle cannot be slipped under another portfolio's name."""
    target = releases.store.bundles / bundles[0].name
    target.parent.mkdir(parents=True)
    target.symlink_to(bundles[0])
    append(releases, bundles[0].name, portfolio="big_loans")

    with pytest.raises(BundleError, match="big_loans"):
        releases.store.current()


def test_a_promotion_is_picked_up_within_two_seconds(
    releases: Releases, bundles: Bundles, follower: ReleaseFollower
) -> None:
    """The first promotion and a later one are served without a restart."""
    assert served(follower) is None

    first = releases.promote(bundles[0])
    wait_for(lambda: served(follower) == first, 2)
    second = releases.promote(bundles[1])
    wait_for(lambda: served(follower) == second, 2)

    assert follower.problem is None


def test_a_changed_bundle_leaves_the_old_one_in_place(
    releases: Releases, bundles: Bundles, follower: ReleaseFollower
) -> None:
    """What cannot be verified is told, and the verified bundle goes on answering."""
    first = releases.promote(bundles[0])
    wait_for(lambda: served(follower) == first, 5)
    other = releases.store.bundles / bundles[1].name
    other.mkdir()
    (other / "manifest.json").write_bytes((bundles[1] / "manifest.json").read_bytes())

    releases.promote(bundles[1])
    wait_for(lambda: follower.problem is not None, 2)

    assert first == served(follower)
    assert follower.problem is not None
    assert bundles[1].name[:12] in follower.problem


def test_a_bundle_that_cannot_decide_its_own_example_is_not_served(
    releases: Releases, bundles: Bundles, follower: ReleaseFollower
) -> None:
    """A bundle is tried before it takes over, even if every file is as released."""
    first = releases.promote(bundles[0])
    wait_for(lambda: served(follower) == first, 5)

    releases.promote(with_changed_code(bundles[0], '"annual_income": 60000.0', '"annual_income": -1.0'))
    wait_for(lambda: follower.problem is not None, 2)

    assert served(follower) == first


def test_a_bundle_that_arrives_after_the_ledger_is_served_then(
    releases: Releases, bundles: Bundles, follower: ReleaseFollower
) -> None:
    """A copy that is slower than the ledger is tried again."""
    append(releases, bundles[0].name)
    wait_for(lambda: follower.problem is not None, 2)

    releases.store.bundles.mkdir()
    (releases.store.bundles / bundles[0].name).symlink_to(bundles[0])

    wait_for(lambda: served(follower) == bundles[0].name, 5)
    assert follower.problem is None


@pytest.mark.parametrize("damage", ["corrupt", "remove"])
def test_a_damaged_ledger_leaves_the_served_bundle_in_place(
    releases: Releases, bundles: Bundles, follower: ReleaseFollower, damage: str
) -> None:
    """Neither a corrupt nor a removed ledger takes the service down."""
    first = releases.promote(bundles[0])
    wait_for(lambda: served(follower) == first, 5)

    if damage == "corrupt":
        releases.store.ledger.path.write_text("{}\n", encoding="utf-8")
    else:
        releases.store.ledger.path.unlink()
    wait_for(lambda: follower.problem is not None, 2)

    assert first == served(follower)


def test_a_ledger_that_lost_an_entry_that_was_served_is_not_followed_back(
    releases: Releases, bundles: Bundles, follower: ReleaseFollower
) -> None:
    """An older copy of the ledger verifies in itself; the running service remembers more."""
    releases.promote(bundles[0])
    older = releases.store.ledger.path.read_bytes()
    second = releases.promote(bundles[1])
    wait_for(lambda: served(follower) == second, 5)

    releases.store.ledger.path.write_bytes(older)
    wait_for(lambda: follower.problem is not None, 2)

    assert (second, "the ledger lost an entry that was served") == (served(follower), follower.problem)


@pytest.mark.parametrize("attack", ["unsigned", "another key"])
def test_a_line_that_the_platform_did_not_sign_is_not_served(
    releases: Releases, bundles: Bundles, follower: ReleaseFollower, attack: str
) -> None:
    """Whoever may write the ledger but not read the key changes nothing."""
    first = releases.promote(bundles[0])
    wait_for(lambda: served(follower) == first, 5)
    ledger = releases.store.ledger
    before = ledger.path.read_bytes()
    releases.promote(bundles[1])
    line = json.loads(ledger.path.read_bytes().splitlines()[1])
    signed = {name: value for name, value in line.items() if name != "signature"}
    if attack == "another key":
        stranger = SigningKey.generate()
        signed["key"] = stranger.public.id
        signed["signature"] = stranger.sign("ledger entry", signed)

    ledger.path.write_bytes(before + rfc8785.dumps(signed) + b"\n")
    wait_for(lambda: follower.problem is not None, 5)

    said = {"unsigned": "line 2 is not signed", "another key": "line 2 is signed with the key"}
    assert said[attack] in str(follower.problem)


class TestRollback:
    """Tests for `ReleaseStore.roll_back`."""

    def test_it_leads_to_the_champion_before_and_further_back(self, releases: Releases, bundles: Bundles) -> None:
        """Two rollbacks lead back twice; the second does not bring the bad model back."""
        first, second = releases.promote(bundles[0]), releases.promote(bundles[1])

        entry = releases.store.roll_back(None, key=releases.key, by="person:jane", reason="complaints")

        assert ("rollback", first, second) == (entry.action, entry.bundle, entry.previous)
        assert ("person:jane", ("complaints",), EVIDENCE) == (entry.by, entry.notes, entry.evidence)
        with pytest.raises(RollbackError, match=f"before {first[:12]}, the first. Name a later one with --to: "):
            releases.store.roll_back(None, key=releases.key, by="test")

    def test_it_is_served_within_two_seconds(
        self, releases: Releases, bundles: Bundles, follower: ReleaseFollower
    ) -> None:
        """One ledger entry is all it takes."""
        first, second = releases.promote(bundles[0]), releases.promote(bundles[1])
        wait_for(lambda: served(follower) == second, 5)

        releases.store.roll_back(first[:8], key=releases.key, by="test")

        wait_for(lambda: served(follower) == first, 2)

    @pytest.mark.parametrize(
        ("to", "said"), [("f" * 64, "names 0 of the bundles"), ("", "names 2 of the bundles"), ("current", "already")]
    )
    def test_it_leads_only_to_what_was_promoted(self, releases: Releases, bundles: Bundles, to: str, said: str) -> None:
        """A bundle that never passed the gate is no target."""
        releases.promote(bundles[0])
        second = releases.promote(bundles[1])

        with pytest.raises(RollbackError, match=said):
            releases.store.roll_back(second if to == "current" else to, key=releases.key, by="test")

    def test_it_does_not_lead_to_a_changed_bundle(self, releases: Releases, bundles: Bundles) -> None:
        """What was promoted once must still be that."""
        tamper(releases, releases.promote(bundles[0]))
        second = releases.promote(bundles[1])

        with pytest.raises(BundleError, match=r"policy\.yaml"):
            releases.store.roll_back(None, key=releases.key, by="test")

        current = releases.store.ledger.current()
        assert current is not None
        assert second == current.bundle

    def test_before_the_first_promotion_there_is_nothing_to_roll_back(self, releases: Releases) -> None:
        """It says so."""
        with pytest.raises(RollbackError, match="nothing was promoted yet"):
            releases.store.roll_back(None, key=releases.key, by="test")


class TestStoreToServe:
    """Tests for `store_to_serve`."""

    def test_the_home_wins_over_the_bento(self, releases: Releases, bundles: Bundles, tmp_path: Path) -> None:
        """A promotion in CDE_HOME is newer than what a bento was built with."""
        built_in = releases_in(tmp_path / "release")
        built_in.promote(bundles[1])
        releases.promote(bundles[0])

        assert releases.store is store_to_serve(releases.store, built_in.store)

    def test_a_bento_without_a_home_serves_what_was_built_in(
        self, releases: Releases, bundles: Bundles, tmp_path: Path
    ) -> None:
        """A bento runs where nothing else is."""
        built_in = releases_in(tmp_path / "release")
        built_in.promote(bundles[1])

        assert built_in.store is store_to_serve(releases.store, built_in.store)

    def test_with_neither_the_home_is_followed(self, releases: Releases, tmp_path: Path) -> None:
        """The service waits for the first promotion."""
        assert releases.store is store_to_serve(releases.store, releases_in(tmp_path / "release").store)
