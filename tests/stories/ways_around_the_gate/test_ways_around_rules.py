"""Rules that no artefact decides: measured on the running service, or attested by a person, or open."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cde_assets.governance import compliance
from cde_checks import gate
from cde_domain.governance.facts import Fact
from cde_domain.governance.rulebook import FILE as RULEBOOK
from cde_domain.governance.rulebook import Rulebook
from cde_domain.portfolio import load_portfolio
from cde_resources import portfolio as portfolio_resource
from cde_serving.evidence import verify_pack
from cde_serving.operation import write_operation_facts
from cde_serving.signing import SigningKey
from tests.lender import Lender
from tests.waiting import NAME, Cde, assert_not_promoted, assert_still_served, pack_of, releases


def _measure(lender: Lender, champion: str, mismatches: float, *, days_ago: int = 0) -> Path:
    """Replay decisions of the champion, with so many that differ; the log of operation is returned."""
    facts = {"n_replayed": 500.0, "decision_mismatches": mismatches, "max_abs_score_diff": 0.0}
    write_operation_facts(
        lender.store.operation,
        "replay.json",
        [Fact(metric, "replay.json", value) for metric, value in facts.items()],
        portfolio=NAME,
        bundle=champion,
        measured_at=datetime.now(UTC) - timedelta(days=days_ago),
        key=releases(lender).signer(),
    )
    return lender.store.operation.path


def _compliance(lender: Lender) -> dict[str, Any]:
    report = json.loads((lender.settings.home / "artefacts" / NAME / "compliance_report.json").read_text())
    return report | {"by_id": {rule["id"]: rule for rule in report["rules"]}}


def test_a_rule_that_failed_in_operation_stops_the_waiting_challenger(lender: Lender, champion: str) -> None:
    _measure(lender, champion, mismatches=3)
    assert_not_promoted(lender, "rule DEC-02: failed in operation: Replayed decisions that differ: 3")
    assert_still_served(lender, champion)


def test_a_rule_that_failed_in_operation_stops_the_next_challenger_by_its_report(lender: Lender, champion: str) -> None:
    _measure(lender, champion, mismatches=3)
    run = lender.run("compliance_report")
    assert _compliance(lender)["by_id"]["DEC-02"]["blocks"]
    assert run.passed["rulebook_passes"] is False


def test_a_rule_that_holds_in_operation_passes_and_stands_on_the_card(lender: Lender, champion: str) -> None:
    _measure(lender, champion, mismatches=0)
    assert lender.run("compliance_report", "model_card", "evidence_pack").success
    report = _compliance(lender)
    assert report["by_id"]["DEC-02"]["status"] == "pass"
    assert [measured["artefact"] for measured in report["operation"]] == ["replay.json"]
    card = json.loads((lender.settings.home / "artefacts" / NAME / "model_card.json").read_text())
    assert f"| replay.json | {report['operation'][0]['measured_at']} | `{champion[:12]}` | 3 |" in card["markdown"]
    assert lender.run("champion_model").success
    assert lender.ledger.entries()[-1].details["operation_log"] == report["operation_log"]
    assert report["operation_log"]["entries"] == 1


def test_a_measurement_of_last_year_is_no_pass(lender: Lender, champion: str) -> None:
    _measure(lender, champion, mismatches=0, days_ago=365)
    assert lender.run("compliance_report").success
    rule = _compliance(lender)["by_id"]["DEC-02"]
    assert (rule["status"], rule["why"]) == ("insufficient_data", "measured more than 92 days ago")


VANISHED: list[tuple[str, Callable[[Path], object]]] = [
    ("deleted", lambda path: path.unlink()),
    ("renamed", lambda path: path.rename(path.with_suffix(".JSONL"))),
    ("cut off", lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))),
]


@pytest.mark.parametrize("vanish", [case[1] for case in VANISHED], ids=[case[0] for case in VANISHED])
def test_a_failure_that_was_made_to_vanish_promotes_nothing(
    lender: Lender, champion: str, vanish: Callable[[Path], object]
) -> None:
    _measure(lender, champion, mismatches=0)
    vanish(_measure(lender, champion, mismatches=3))
    assert_not_promoted(lender, "facts of operation: operation.jsonl has ", "but there was an entry 2")
    assert_still_served(lender, champion)
    run = lender.run("compliance_report")
    assert "but there was an entry 2" in run.failures["compliance_report"]


def test_a_failure_that_one_report_saw_cannot_vanish_from_the_next_with_all_its_files(
    lender: Lender, champion: str
) -> None:
    log = lender.store.operation
    _measure(lender, champion, mismatches=3)
    lender.run("compliance_report")
    log.path.unlink()
    log.head.unlink()
    assert lender.run("compliance_report", "model_card", "evidence_pack").success
    assert_not_promoted(lender, "facts of operation: operation.jsonl has 0 entries, but there was an entry 1")
    assert_still_served(lender, champion)


def test_a_fact_of_the_wrong_kind_is_told_by_gate_and_report(lender: Lender, champion: str) -> None:
    entry = {
        "portfolio": NAME,
        "artefact": "replay.json",
        "bundle": champion,
        "measured_at": "2026-01-01T00:00:00Z",
        "facts": [{"metric": "n_replayed", "value": "many"}],
    }
    lender.store.operation.append(entry, releases(lender).signer())
    told = "replay.json: n_replayed is a word, and its rule asks for a number"
    assert_not_promoted(lender, f"operation.jsonl line 1 holds a fact of the wrong kind: {told}")
    assert told in lender.run("compliance_report").failures["compliance_report"]


@pytest.fixture
def rulebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the rulebook in its place, to be edited."""
    path = Path(shutil.copy(RULEBOOK, tmp_path / RULEBOOK.name))
    monkeypatch.setattr(gate, "RULEBOOK_FILE", path)
    monkeypatch.setattr(compliance, "RULEBOOK_FILE", path)
    monkeypatch.setattr(Rulebook.read.__func__, "__defaults__", (path,))
    return path


def test_a_rulebook_made_milder_after_the_judgement_promotes_nothing(
    lender: Lender, champion: str, rulebook: Path
) -> None:
    rulebook.write_text(rulebook.read_text().replace("severity: block", "severity: warn"))
    assert_not_promoted(lender, "compliance_report: the rulebook was changed since it was judged. Run the whole job")
    assert_still_served(lender, champion)


def test_a_rule_on_an_unknown_metric_is_refused_by_name_before_anything_is_made(
    lender: Lender, champion: str, rulebook: Path, cde: Cde
) -> None:
    rulebook.write_text(rulebook.read_text().replace("metric: auc,", "metric: auc_of_dreams,", 1))
    told = "asks for unknown metric 'auc_of_dreams'"
    code, said = cde("demo", NAME)
    assert (code, "rulebook.yaml: rule PERF-01 " + told in said) == (1, True)
    code, said = cde("why-not", NAME)
    assert (code, f"rulebook: rulebook.yaml: rule PERF-01 {told}" in said) == (1, True)
    assert told in lender.run("compliance_report").failures["compliance_report"]
    assert_still_served(lender, champion)


def test_a_failure_rewritten_by_hand_promotes_nothing(lender: Lender, champion: str) -> None:
    path = _measure(lender, champion, mismatches=3)
    path.write_text(path.read_text().replace('"value":3', '"value":0'))
    assert_not_promoted(lender, "facts of operation: operation.jsonl line 1 bears a signature that does not match")
    run = lender.run("compliance_report")
    assert "the facts of operation cannot be used" in run.failures["compliance_report"]


@pytest.fixture
def without_inventory(approver: SigningKey, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The portfolio has no inventory entry, so that a person must answer for GOV-01; Jane's private key."""
    wanting = dataclasses.replace(load_portfolio(NAME), inventory=None)
    monkeypatch.setattr(portfolio_resource, "_loaded", lambda reference: wanting)
    path = tmp_path / "jane.key"
    path.write_bytes(approver.pem())
    return path


SAID = ("--statement", "In the inventory as tier high; validated by others than its builders.", "--by", "jane")


def test_a_person_attests_what_no_program_decides_and_it_is_on_the_card_and_in_the_pack(
    lender: Lender, without_inventory: Path, cde: Cde
) -> None:
    code, said = cde("attest", NAME, "GOV-01", *SAID, "--role", "head of risk", "--key", without_inventory)
    assert code == 0, said
    assert lender.run("compliance_report", "model_card", "evidence_pack").success
    rule = _compliance(lender)["by_id"]["GOV-01"]
    assert (rule["status"], rule["attested_by"]) == ("attested", "jane, head of risk")
    card = json.loads((lender.settings.home / "artefacts" / NAME / "model_card.json").read_text())["markdown"]
    assert "| GOV-01 | jane, head of risk |" in card
    pack = verify_pack(pack_of(lender), releases(lender).trusted())
    assert pack.report("attestations/GOV-01.json")["name"] == "jane"
    assert lender.run("champion_model").success
    assert "GOV-01" not in lender.ledger.entries()[-1].details["open"]


def _words(path: Path) -> None:
    path.write_text(path.read_text().replace("tier high", "tier low"))


@pytest.mark.parametrize(
    "spoil", [_words, lambda path: path.write_bytes(path.read_bytes()[:80])], ids=["edited", "cut"]
)
def test_an_attestation_that_was_changed_leaves_the_rule_open_by_name(
    lender: Lender, without_inventory: Path, cde: Cde, spoil: Callable[[Path], object]
) -> None:
    assert cde("attest", NAME, "GOV-01", *SAID, "--key", without_inventory)[0] == 0
    spoil(lender.store.attestations / "GOV-01.json")
    assert lender.run("compliance_report", "model_card").success
    report = _compliance(lender)
    assert report["by_id"]["GOV-01"]["status"] == "not_yet_measured"
    assert [refused["file"] for refused in report["refused_attestations"]] == ["GOV-01.json"]
    card = json.loads((lender.settings.home / "artefacts" / NAME / "model_card.json").read_text())["markdown"]
    assert "**Attestations that do not count:** GOV-01.json (it" in card


def test_attest_refuses_measured_rules_strangers_and_the_platforms_key(
    lender: Lender, without_inventory: Path, cde: Cde, tmp_path: Path
) -> None:
    code, said = cde("attest", NAME, "PERF-01", *SAID, "--key", without_inventory)
    assert (code, "GOV-01" in said) == (2, True)
    assert cde("attest", NAME, "GOV-01", *SAID, "--key", without_inventory, "--until", "2020-01-01")[0] == 2
    assert cde("attest", NAME, "GOV-01", *SAID, "--key", without_inventory, "--until", "someday")[0] == 2
    code, said = cde("attest", NAME, "GOV-01", *SAID, "--key", lender.settings.signing_key_file())
    assert (code, "the platform's own key" in said) == (1, True)
    stranger = tmp_path / "stranger.key"
    stranger.write_bytes(SigningKey.generate().pem())
    code, said = cde("attest", NAME, "GOV-01", *SAID, "--key", stranger)
    assert (code, f"-out {lender.settings.approver_keys_folder() / 'jane.pem'}" in said) == (1, True)
    assert not lender.store.attestations.exists()
