"""Evidence that was changed, is old, or was used before promotes nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cde_domain.digests import folder_digests, write_json
from cde_serving.signing import SigningKey
from tests.lender import Lender
from tests.waiting import assert_not_promoted, assert_still_served, edit, pack_of, releases, truncate, verified


def test_without_any_cheating_the_challenger_is_promoted(lender: Lender, champion: str) -> None:
    """The control: what is refused below is refused for its own reason."""
    pack = verified(lender)
    assert lender.run("champion_model").success

    entry = lender.ledger.entries()[-1]

    assert ("promote", champion, pack.digest) == (entry.action, entry.previous, entry.evidence)
    assert pack.manifest.model_digest == entry.details["model_digest"]
    assert_still_served(lender, entry.bundle)


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


def twice(name: str, field: str) -> Callable[[Path], object]:
    """Put another value of a field before the signed one, which readers of JSON prefer."""
    return lambda pack: (pack / name).write_text((pack / name).read_text().replace("{", "{" + field + ",", 1))


def sign_more(pack: Path) -> None:
    """Add a field to the signature."""
    signature = json.loads((pack / "signature.json").read_text())
    write_json(pack / "signature.json", signature | {"approved": True})


def capitals(pack: Path) -> None:
    """Spell the signature otherwise."""
    signature = json.loads((pack / "signature.json").read_text())
    write_json(pack / "signature.json", signature | {"signature": signature["signature"].upper()})


def append(name: str) -> Callable[[Path], object]:
    """Append what changes no value."""
    return lambda pack: (pack / name).write_bytes((pack / name).read_bytes() + b"  ")


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
    ("spaces behind manifest", append("manifest.json"), "manifest.json holds other bytes than were signed"),
    ("spaces behind signature", append("signature.json"), "signature.json holds other bytes than were signed"),
    ("a field twice", twice("manifest.json", '"portfolio": "x"'), "manifest.json holds other bytes than were signed"),
    ("a signature twice", twice("signature.json", '"key": "x"'), "signature.json holds other bytes than were signed"),
    ("a field in the signature", sign_more, "signature.json holds no signature"),
    ("a signature in capitals", capitals, "signature.json holds no signature"),
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
