"""Tests for `cde_serving.ledger`."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from cde_serving.ledger import LedgerConflictError, LedgerEntry, LedgerError, PromotionLedger

A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def ledger(tmp_path: Path) -> PromotionLedger:
    """An empty ledger."""
    return PromotionLedger(tmp_path / "portfolio" / "ledger.jsonl")


def append(ledger: PromotionLedger, bundle: str, expected: str | None, **more: Any) -> LedgerEntry:
    """Promote a bundle."""
    return ledger.append(
        **{"action": "promote", "portfolio": "loans", "by": "test", **more}, bundle=bundle, expected_previous=expected
    )


def rewrite(ledger: PromotionLedger, number: int, **changes: Any) -> None:
    """Change fields of one line behind the ledger's back."""
    lines = ledger.path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **changes})
    ledger.path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_nothing_is_promoted_at_first(ledger: PromotionLedger) -> None:
    """A ledger without a file is empty."""
    assert ledger.entries() == ()
    assert ledger.current() is None


def test_an_entry_is_read_back_as_it_was_appended(ledger: PromotionLedger) -> None:
    """Everything that was said about a promotion is kept."""
    notes = ("insufficient_data: sex=other",)
    written = append(ledger, A, None, evidence=C, notes=notes, details={"run": "r1", "version": 3})

    assert (written,) == ledger.entries()
    assert (1, "loans", A, None, C, notes) == (
        written.sequence,
        written.portfolio,
        written.bundle,
        written.previous,
        written.evidence,
        written.notes,
    )
    assert written.details == {"run": "r1", "version": 3}


def test_a_rollback_makes_an_older_bundle_current(ledger: PromotionLedger) -> None:
    """A rollback is an entry like any other."""
    append(ledger, A, None)
    append(ledger, B, A)
    append(ledger, A, B, action="rollback")

    current = ledger.current()

    assert current is not None
    assert (current.action, current.bundle, current.previous, current.sequence) == ("rollback", A, B, 3)


@pytest.mark.parametrize("expected", [None, B])
def test_a_promotion_over_an_unexpected_bundle_is_refused(ledger: PromotionLedger, expected: str | None) -> None:
    """Whoever did not see the last promotion cannot replace it."""
    append(ledger, A, None)

    with pytest.raises(LedgerConflictError, match=A[:12]):
        append(ledger, C, expected)

    assert len(ledger.entries()) == 1


def promote_once(path: Path, bundle: str, outcomes: Any) -> None:
    """Promote over nothing and report how it went."""
    try:
        append(PromotionLedger(path), bundle, None)
        outcomes.put("promoted")
    except LedgerConflictError:
        outcomes.put("refused")


def test_of_processes_that_promote_at_once_one_wins(ledger: PromotionLedger) -> None:
    """Compare and swap holds between processes."""
    context = multiprocessing.get_context("fork")
    outcomes = context.Queue()
    racers = [context.Process(target=promote_once, args=(ledger.path, digit * 64, outcomes)) for digit in "abcdef"]
    for racer in racers:
        racer.start()
    results = sorted(outcomes.get(timeout=30) for _ in racers)
    for racer in racers:
        racer.join()

    assert ["promoted", *["refused"] * 5] == results
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": C}, "line 2 does not follow"),
        ({"by": "somebody else"}, "line 2 does not follow"),
        ({"sequence": 7}, "line 1 has the sequence number 7"),
        ({"bundle": "short"}, "line 1 is no entry: bundle"),
        ({"approved": True}, "line 1 is no entry: approved"),
    ],
)
def test_a_changed_line_is_refused(ledger: PromotionLedger, changes: dict[str, Any], message: str) -> None:
    """The chain of digests shows a line that was rewritten."""
    append(ledger, A, None)
    append(ledger, B, A)
    rewrite(ledger, 1, **changes)

    with pytest.raises(LedgerError, match=message):
        ledger.entries()
    with pytest.raises(LedgerError, match=message):
        append(ledger, C, B)


def test_a_removed_line_is_refused(ledger: PromotionLedger) -> None:
    """History cannot be shortened from the front."""
    append(ledger, A, None)
    append(ledger, B, A)
    ledger.path.write_bytes(ledger.path.read_bytes().split(b"\n", 1)[1])

    with pytest.raises(LedgerError, match="line 1 has the sequence number 2"):
        ledger.entries()


@pytest.mark.parametrize("content", [b"{not json\n", b"\n", b"\xff\xfe\n", b"[" * 5000 + b"\n", b'{"sequence": NaN}\n'])
def test_a_damaged_line_is_refused_by_its_number(ledger: PromotionLedger, content: bytes) -> None:
    """What is no entry is told with its line number, not as a crash of the parser."""
    append(ledger, A, None)
    ledger.path.write_bytes(ledger.path.read_bytes() + content)

    with pytest.raises(LedgerError, match="line 2"):
        ledger.current()


@pytest.mark.parametrize("keep", [1, 40, -1])
def test_an_append_cut_off_by_a_crash_never_happened(ledger: PromotionLedger, keep: int) -> None:
    """A last line without its newline is ignored, and overwritten by the next append."""
    append(ledger, A, None)
    whole = ledger.path.read_bytes()
    append(ledger, B, A)
    torn = ledger.path.read_bytes()[len(whole) :][:keep]
    ledger.path.write_bytes(whole + torn)

    assert [entry.bundle for entry in ledger.entries()] == [A]

    append(ledger, C, A)

    assert [entry.bundle for entry in ledger.entries()] == [A, C]


def test_a_field_that_lines_lack_leaves_the_chain_valid(ledger: PromotionLedger) -> None:
    """The chain is taken over lines as stored, so older lines may lack a field that has a default."""
    append(ledger, A, None)
    value = json.loads(ledger.path.read_bytes())
    del value["notes"]
    ledger.path.write_text(json.dumps(value) + "\n", encoding="utf-8")

    append(ledger, B, A)

    assert [entry.bundle for entry in ledger.entries()] == [A, B]
