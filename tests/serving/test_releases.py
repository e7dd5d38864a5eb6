"""Tests for `cde_serving.releases` and `cde_serving.follower`."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cde_domain.digests import folder_digests, json_digest, write_json
from cde_domain.release import BundleError
from cde_serving.follower import ReleaseFollower
from cde_serving.releases import ReleaseStore, store_to_serve
from tests.serving.helpers import Releases, wait_for

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
    releases.store.ledger.append(
        action="promote", portfolio="big_loans", bundle=bundles[0].name, expected_previous=None, by="test"
    )

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
    releases.store.ledger.append(
        action="promote", portfolio="tiny_loans", bundle=bundles[0].name, expected_previous=None, by="test"
    )
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


class TestStoreToServe:
    """Tests for `store_to_serve`."""

    def test_the_home_wins_over_the_bento(self, releases: Releases, bundles: Bundles, tmp_path: Path) -> None:
        """A promotion in CDE_HOME is newer than what a bento was built with."""
        Releases(ReleaseStore(tmp_path / "release")).promote(bundles[1])
        releases.promote(bundles[0])

        assert releases.store.folder == store_to_serve(releases.store.folder, tmp_path / "release").folder

    def test_a_bento_without_a_home_serves_what_was_built_in(
        self, releases: Releases, bundles: Bundles, tmp_path: Path
    ) -> None:
        """A bento runs where nothing else is."""
        Releases(ReleaseStore(tmp_path / "release")).promote(bundles[1])

        assert tmp_path / "release" == store_to_serve(releases.store.folder, tmp_path / "release").folder

    def test_with_neither_the_home_is_followed(self, releases: Releases, tmp_path: Path) -> None:
        """The service waits for the first promotion."""
        assert releases.store.folder == store_to_serve(releases.store.folder, tmp_path / "release").folder
