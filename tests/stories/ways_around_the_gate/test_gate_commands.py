"""What `cde verify-evidence`, `approve`, `rollback` and `why-not` answer."""

import os
import pwd
import shutil
from pathlib import Path

import pytest

from cde_serving.signing import SigningKey
from tests.lender import Lender
from tests.waiting import NAME, Cde, edit, pack_of


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
    stranger = tmp_path / "stranger.key"
    stranger.write_bytes(SigningKey.generate().pem())
    code, said = cde(*given, stranger)
    assert (code, f"-pubout -out {lender.settings.approver_keys_folder() / 'jane.pem'}" in said) == (1, True)
    assert not lender.store.approvals.exists()

    assert cde(*given, key)[0] == 0
    assert lender.run("champion_model").success


def test_rollback_is_one_ledger_entry_and_the_alias_follows(
    lender: Lender, champion: str, cde: Cde, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lender.run("champion_model").success
    monkeypatch.setenv("LOGNAME", "the_ceo")

    code, said = cde("rollback", NAME, "--reason", "complaints")

    assert code == 0, said
    entry = lender.ledger.entries()[-1]
    assert (entry.sequence, entry.action, entry.bundle, entry.notes) == (4, "rollback", champion, ("complaints",))
    assert entry.by == f"os-user:{pwd.getpwuid(os.getuid()).pw_name}"
    assert "alias champion follows to version 1" in said
    assert cde("rollback", NAME, "--to", champion[:12])[0] == 1


def test_why_not_tells_the_same_reason_as_the_refusal(lender: Lender, cde: Cde) -> None:
    edit(pack_of(lender) / "model_card.md")
    code, said = cde("why-not", NAME)
    assert code == 1
    assert "evidence_pack: model_card.md was changed\n    To do: Materialise evidence_pack again." in said
