"""A forged, removed or contested ledger promotes and serves nothing."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from cde_assets import release
from cde_checks.gate import Case, examine
from cde_domain.digests import folder_digests, json_digest, write_json
from cde_serving.follower import ReleaseFollower
from cde_serving.ledger import LedgerEntry
from cde_serving.signed_log import SignedLog
from cde_serving.signing import SigningKey
from tests.lender import Lender
from tests.waiting import (
    NAME,
    assert_not_promoted,
    assert_still_served,
    promote,
    releases,
    with_other_policy,
)


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
        file.write(rfc8785.dumps(value) + b"\n")


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
    told = f"ledger: expected entry 2 to be the last, but entry 3 is the last (promote of {before[:12]})"
    assert_not_promoted(lender, told)
    assert_still_served(lender, before)


def test_a_promotion_between_the_gate_and_the_ledgers_line_is_not_overwritten(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = with_third_policy(lender.store.bundles / lender.ledger.entries()[0].bundle)

    def overtaken(*given: Any) -> Case:
        case = examine(*given)
        assert not case.refusals
        promote(lender, third)
        return case

    monkeypatch.setattr(release, "examine", overtaken)
    run = lender.run("champion_model")
    assert "ledger: expected entry 2 to be the last, but entry 3 is" in run.failures["champion_model"]
    assert_still_served(lender, third.name)


def test_a_challenger_compared_before_a_promotion_and_its_rollback_is_stale(lender: Lender, champion: str) -> None:
    promote(lender, with_third_policy(lender.store.bundles / lender.ledger.entries()[0].bundle))
    lender.store.roll_back(champion, key=releases(lender).signer(), by="test")
    assert_not_promoted(lender, "ledger: expected entry 2 to be the last, but entry 4 is the last (rollback of")
    assert_still_served(lender, champion)


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

    def write_half(self: SignedLog[LedgerEntry], line: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(line[: len(line) // 2])
        os._exit(9)

    SignedLog._write = write_half  # type: ignore[method-assign,assignment]
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
