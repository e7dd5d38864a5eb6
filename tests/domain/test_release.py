"""A release: its digest is its content, whatever was changed is refused, and versions live side by side."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cde_domain.digests import file_digest, folder_digests, json_digest, write_json
from cde_domain.release import BundleError, load_bundle, verify_bundle, write_bundle
from tests.support import REFERENCE, TinyLoans

EXAMPLE = "portfolio/__init__.py"


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of a bundle, to be changed."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name))


def released_again(folder: Path, **changes: object) -> tuple[Path, str]:
    """Write the manifest anew for what is in the folder now: another release, with another digest."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (folder / "manifest.json").unlink()
    manifest |= {"files": folder_digests(folder), **changes}
    write_json(folder / "manifest.json", manifest)
    return folder, json_digest(manifest)


def test_the_same_content_has_the_same_digest(tiny: TinyLoans, tiny_bundle: Path, tmp_path: Path):
    again = write_bundle(tmp_path, REFERENCE, tiny.portfolio, tiny_bundle / "model")

    assert again.name == tiny_bundle.name
    assert folder_digests(again) == folder_digests(tiny_bundle)


def test_a_bundle_that_is_there_is_left_as_it_is(tiny: TinyLoans, copy: Path):
    before = (copy / "manifest.json").stat()

    again = write_bundle(copy.parent, REFERENCE, tiny.portfolio, copy / "model")

    assert (again, (copy / "manifest.json").stat().st_mtime_ns) == (copy, before.st_mtime_ns)
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_another_model_is_another_bundle(tiny: TinyLoans, copy: Path, tmp_path: Path):
    model = json.loads((copy / "model" / "model.json").read_text(encoding="utf-8"))
    write_json(copy / "model" / "model.json", {**model, "provenance": {"seed": 99}})

    assert write_bundle(tmp_path / "others", REFERENCE, tiny.portfolio, copy / "model").name != copy.name


def test_the_digest_is_that_of_the_canonical_manifest(tiny_bundle: Path):
    manifest = json.loads((tiny_bundle / "manifest.json").read_text(encoding="utf-8"))

    assert json_digest(manifest) == tiny_bundle.name
    assert json_digest(dict(reversed(manifest.items()))) == tiny_bundle.name


def test_a_bundle_holds_model_policy_and_code_and_no_pickle(tiny_bundle: Path):
    files = verify_bundle(tiny_bundle, tiny_bundle.name)["files"]

    assert {"policy.yaml", EXAMPLE, "portfolio/policy.yaml", "model/model.json", "model/trees/table.npy"} <= set(files)
    assert {Path(name).suffix for name in files} == {".py", ".yaml", ".json", ".npy"}


def change_policy(bundle: Path) -> None:
    path = bundle / "policy.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("0.8", "0.7"), encoding="utf-8")


def change_an_array(bundle: Path) -> None:
    path = bundle / "model" / "trees" / "leaf_value.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_policy, "policy.yaml is not the file that was released"),
        (change_an_array, "model/trees/leaf_value.npy is not the file that was released"),
        (lambda bundle: (bundle / EXAMPLE).unlink(), f"{EXAMPLE} is missing"),
        (lambda bundle: (bundle / "portfolio" / "more.py").touch(), "portfolio/more.py is not in the manifest"),
        (lambda bundle: (bundle / "model" / ".hidden").touch(), "model/.hidden is not in the manifest"),
        (lambda bundle: released_again(bundle, note="hello"), "the manifest has the digest"),
        (lambda bundle: (bundle / "manifest.json").unlink(), "its manifest cannot be read"),
        (lambda bundle: (bundle / "manifest.json").write_text("{}"), "its manifest cannot be read"),
        (lambda bundle: (bundle / "manifest.json").write_text("[1"), "its manifest cannot be read"),
    ],
)
def test_a_bundle_that_was_changed_is_refused_and_the_file_is_named(
    change: Callable[[Path], object], said: str, copy: Path
):
    change(copy)

    with pytest.raises(BundleError) as refused:
        load_bundle(copy, copy.name)

    assert str(refused.value).startswith(f"bundle {copy.name[:12]}: {said}")


def test_a_changed_bundle_cannot_pass_for_the_one_that_was_promoted(copy: Path):
    change_policy(copy)
    _, other = released_again(copy)

    assert load_bundle(copy, other).digest != copy.name
    with pytest.raises(BundleError, match=f"the manifest has the digest {other[:12]}"):
        load_bundle(copy, copy.name)


def test_a_bundle_of_another_format_is_refused(copy: Path):
    folder, digest = released_again(copy, format=2)

    with pytest.raises(BundleError, match="its format is 2, this version reads 1"):
        verify_bundle(folder, digest)


def test_a_policy_about_an_unknown_feature_is_refused(copy: Path):
    path = copy / "policy.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("bureau_score", "shoe_size"), encoding="utf-8")

    with pytest.raises(BundleError, match="there is no feature 'shoe_size'"):
        load_bundle(*released_again(copy))


def test_a_model_of_other_features_than_the_portfolio_is_refused(copy: Path):
    path = copy / EXAMPLE
    path.write_text(path.read_text(encoding="utf-8").replace('"total_balance"', '"sum_of_debts"'), encoding="utf-8")

    with pytest.raises(BundleError, match="the model was made for the features"):
        load_bundle(*released_again(copy))


def test_code_that_cannot_run_is_refused_and_leaves_no_module_behind(copy: Path):
    (copy / EXAMPLE).write_text("raise RuntimeError('no such thing')\n", encoding="utf-8")
    folder, digest = released_again(copy)

    with pytest.raises(BundleError, match="RuntimeError: no such thing"):
        load_bundle(folder, digest)

    assert f"cde_bundle_{digest[:16]}" not in sys.modules


def test_two_versions_of_a_portfolio_live_in_one_process(tiny_bundle: Path, copy: Path):
    path = copy / EXAMPLE
    path.write_text(path.read_text(encoding="utf-8").replace('"Tiny loans"', '"Tiny loans, revised"'), encoding="utf-8")

    old, new = load_bundle(tiny_bundle, tiny_bundle.name), load_bundle(*released_again(copy))

    assert (old.portfolio.title, new.portfolio.title) == ("Tiny loans", "Tiny loans, revised")
    assert old.portfolio.application is not new.portfolio.application


def test_loading_writes_nothing_beside_the_verified_files(copy: Path):
    folder, digest = released_again(copy, note="loaded here for the first time")
    before, writes_bytecode = folder_digests(folder), sys.dont_write_bytecode

    load_bundle(folder, digest)

    assert folder_digests(folder) == before
    assert not list(folder.rglob("__pycache__"))
    assert sys.dont_write_bytecode is writes_bytecode


def test_a_file_digest_is_its_sha_256(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")

    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_number_that_json_cannot_hold_is_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "report.json", {"auc": float("nan")})
