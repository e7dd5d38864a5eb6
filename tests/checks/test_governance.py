"""The check on the compliance report, and the ledger's facts it rests on."""

from cde_assets.governance.compliance import ledger_facts
from cde_checks.governance import rulebook_passes
from cde_serving.ledger import LedgerEntry


def _report(status: str, *, blocks: bool) -> dict:
    rule = {"id": "PERF-01", "title": "Discriminates", "status": status, "blocks": blocks, "number": "auc 0.5"}
    return {"jurisdiction": "EU", "rules": [rule]}


def test_a_failed_blocking_rule_stops_the_promotion_by_name_and_number() -> None:
    result = rulebook_passes(_report("fail", blocks=True))
    assert not result.passed
    assert result.description == "PERF-01 Discriminates: auc 0.5"


def test_open_rules_and_failures_that_only_warn_are_told_and_do_not_stop() -> None:
    still_open = rulebook_passes(_report("insufficient_data", blocks=False))
    assert (still_open.passed, still_open.description) == (True, "1 rules open")
    noted = rulebook_passes(_report("fail", blocks=False))
    assert (noted.passed, noted.description) == (True, "PERF-01 fail")


def _entry(**details: str) -> LedgerEntry:
    digest = "0" * 64
    return LedgerEntry(
        sequence=1,
        at="2026-11-22T00:00:00Z",
        portfolio="p",
        action="promote",
        bundle=digest,
        previous=None,
        evidence=digest,
        key=digest,
        signature="",
        by="dagster:run",
        details=details,
        previous_entry="",
    )


def test_an_automatic_promotion_has_its_authority_and_an_unapproved_one_has_not() -> None:
    assert ledger_facts(()) == []
    (automatic,) = ledger_facts((_entry(authority="automatic"), _entry()))
    (unapproved,) = ledger_facts((_entry(authority="approval_required"),))
    (approved,) = ledger_facts((_entry(authority="approval_required", approved_by="Asha Rao"),))
    assert (automatic.value, unapproved.value, approved.value) == (0.0, 1.0, 0.0)
