"""Tests for `cde_serving.ledger`."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from cde_serving.ledger import LedgerConflictError, LedgerEntry, LedgerError, PromotionLedger
from cde_serving.signing import SigningKey

A, B, C = "a" * 64, "b" * 64, "c" * 64
KEY = SigningKey.generate()


@pytest.fixture
def ledger(tmp_path: Path) -> PromotionLedger:
    """An empty ledger."""
    (tmp_path / "signing.pub").write_bytes(KEY.public.pem())
    return PromotionLedger(tmp_path / "portfolio" / "ledger.jsonl", tmp_path / "signing.pub")


def append(ledger: PromotionLedger, bundle: str, expected: int | None, **more: Any) -> LedgerEntry:
    """Promote a bundle."""
    return ledger.append(
        **{"action": "promote", "portfolio": "loans", "by": "test", "evidence": C, "key": KEY, **more},
        bundle=bundle,
        expected_sequence=expected,
    )


def rewrite(ledger: PromotionLedger, number: int, *, key: SigningKey | None = None, **changes: Any) -> None:
    """Change fields of one line behind the ledger's back, and sign it anew if a key is given."""
    lines = ledger.path.read_text(encoding="utf-8").splitlines()
    value = {**json.loads(lines[number - 1]), **changes}
    if key:
        del value["signature"]
        value["signature"] = key.sign("ledger entry", value)
    lines[number - 1] = rfc8785.dumps(value).decode()
    ledger.path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_nothing_is_promoted_at_first(ledger: PromotionLedger) -> None:
    """A ledger without a file is empty."""
    assert ledger.entries() == ()
    assert ledger.current() is None


def test_an_entry_is_read_back_as_it_was_appended(ledger: PromotionLedger) -> None:
    """Everything that was said about a promotion is kept."""
    notes = ("insufficient_data: sex=other",)
    written = append(ledger, A, 0, evidence=C, notes=notes, details={"run": "r1", "version": 3})

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
    append(ledger, A, 0)
    append(ledger, B, 1)
    append(ledger, A, 2, action="rollback")

    current = ledger.current()

    assert current is not None
    assert (current.action, current.bundle, current.previous, current.sequence) == ("rollback", A, B, 3)


@pytest.mark.parametrize(
    ("expected", "told"), [(None, "no entry that could be read"), (0, "an empty ledger"), (2, "entry 2")]
)
def test_a_promotion_over_an_unexpected_entry_is_refused(
    ledger: PromotionLedger, expected: int | None, told: str
) -> None:
    """Whoever did not see the last promotion cannot replace it."""
    append(ledger, A, 0)

    with pytest.raises(LedgerConflictError, match=f"expected {told} to be the last, but entry 1 .*{A[:12]}"):
        append(ledger, C, expected)

    assert len(ledger.entries()) == 1


def test_a_bundle_that_came_back_by_a_rollback_is_not_the_entry_that_was_seen(ledger: PromotionLedger) -> None:
    """Nobody is promoted over a champion that was replaced and rolled back to since they were compared with it."""
    seen = append(ledger, A, 0)
    append(ledger, B, 1)
    back = append(ledger, A, 2, action="rollback")
    assert seen.bundle == back.bundle

    with pytest.raises(LedgerConflictError, match="expected entry 1 to be the last, but entry 3 is"):
        append(ledger, C, seen.sequence)


def promote_once(ledger: PromotionLedger, bundle: str, outcomes: Any) -> None:
    """Promote over nothing and report how it went."""
    try:
        append(ledger, bundle, 0)
        outcomes.put("promoted")
    except LedgerConflictError:
        outcomes.put("refused")


def test_of_processes_that_promote_at_once_one_wins(ledger: PromotionLedger) -> None:
    """Compare and swap holds between processes."""
    context = multiprocessing.get_context("fork")
    outcomes = context.Queue()
    racers = [context.Process(target=promote_once, args=(ledger, digit * 64, outcomes)) for digit in "abcdef"]
    for racer in racers:
        racer.start()
    results = sorted(outcomes.get(timeout=30) for _ in racers)
    for racer in racers:
        racer.join()

    assert ["promoted", *["refused"] * 5] == results
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize(
    "changes", [{"bundle": C}, {"by": "somebody else"}, {"evidence": A}, {"notes": ["fine"]}, {"signature": "00" * 64}]
)
def test_a_changed_line_is_refused_by_its_signature(ledger: PromotionLedger, changes: dict[str, Any]) -> None:
    """Every field is signed."""
    append(ledger, A, 0)
    append(ledger, B, 1)
    rewrite(ledger, 1, **changes)

    with pytest.raises(LedgerError, match="line 1 bears a signature that does not match"):
        ledger.entries()
    with pytest.raises(LedgerError, match="line 1 bears a signature that does not match"):
        append(ledger, C, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": C}, "line 2 does not follow"),
        ({"by": "somebody else"}, "line 2 does not follow"),
        ({"sequence": 7}, "line 1 has the sequence number 7"),
        ({"bundle": "short"}, "line 1 is no entry: bundle"),
        ({"approved": True}, "line 1 is no entry: approved"),
        ({"evidence": ""}, "line 1 is no entry: evidence"),
    ],
)
def test_a_line_changed_and_signed_again_is_refused_by_the_chain(
    ledger: PromotionLedger, changes: dict[str, Any], message: str
) -> None:
    """Even with the key, history cannot be rewritten line by line."""
    append(ledger, A, 0)
    append(ledger, B, 1)
    rewrite(ledger, 1, key=KEY, **changes)

    with pytest.raises(LedgerError, match=message):
        ledger.entries()


def test_a_line_without_signature_is_refused(ledger: PromotionLedger) -> None:
    """Ledgers from before there were signatures are not believed either."""
    append(ledger, A, 0)
    value = json.loads(ledger.path.read_bytes())
    del value["signature"], value["key"]
    ledger.path.write_bytes(rfc8785.dumps(value) + b"\n")

    with pytest.raises(LedgerError, match=r"ledger\.jsonl line 1 is not signed"):
        ledger.entries()


def test_a_line_signed_with_another_key_is_refused(ledger: PromotionLedger) -> None:
    """The key that counts is the configured one, not one that the line names."""
    stranger = SigningKey.generate()
    append(ledger, A, 0)
    rewrite(ledger, 1, key=stranger, by="stranger")

    with pytest.raises(LedgerError, match="line 1 bears a signature that does not match"):
        ledger.entries()

    ledger.path.unlink()
    with pytest.raises(LedgerError, match="is not trusted"):
        append(ledger, A, 0, key=stranger)
    assert not ledger.path.exists()


def test_an_old_line_replayed_at_the_end_is_refused(ledger: PromotionLedger) -> None:
    """A true signature of the past says nothing about now."""
    append(ledger, A, 0)
    append(ledger, B, 1)
    first = ledger.path.read_bytes().splitlines()[0]
    ledger.path.write_bytes(ledger.path.read_bytes() + first + b"\n")

    with pytest.raises(LedgerError, match="line 3 has the sequence number 1"):
        ledger.current()


def test_the_ledger_of_another_portfolio_is_refused(ledger: PromotionLedger) -> None:
    """A true ledger under the wrong name serves nothing."""
    append(ledger, A, 0)

    with pytest.raises(LedgerError, match="line 1 is of the ledger of loans"):
        PromotionLedger(ledger.path, ledger.public_key, portfolio="cars").entries()


def test_without_a_public_key_nothing_is_believed(ledger: PromotionLedger) -> None:
    """It says which file is missing."""
    append(ledger, A, 0)
    ledger.public_key.unlink()

    with pytest.raises(LedgerError, match=r"signing\.pub cannot be read"):
        ledger.entries()


def test_a_removed_line_is_refused(ledger: PromotionLedger) -> None:
    """History cannot be shortened from the front."""
    append(ledger, A, 0)
    append(ledger, B, 1)
    ledger.path.write_bytes(ledger.path.read_bytes().split(b"\n", 1)[1])

    with pytest.raises(LedgerError, match="line 1 has the sequence number 2"):
        ledger.entries()


@pytest.mark.parametrize("content", [b"{not json\n", b"\n", b"\xff\xfe\n", b"[" * 5000 + b"\n", b'{"sequence": NaN}\n'])
def test_a_damaged_line_is_refused_by_its_number(ledger: PromotionLedger, content: bytes) -> None:
    """What is no entry is told with its line number, not as a crash of the parser."""
    append(ledger, A, 0)
    ledger.path.write_bytes(ledger.path.read_bytes() + content)

    with pytest.raises(LedgerError, match="line 2"):
        ledger.current()


@pytest.mark.parametrize("keep", [1, 40, -1])
def test_an_append_cut_off_by_a_crash_never_happened(ledger: PromotionLedger, keep: int) -> None:
    """A last line without its newline is ignored, and overwritten by the next append."""
    append(ledger, A, 0)
    whole = ledger.path.read_bytes()
    append(ledger, B, 1)
    torn = ledger.path.read_bytes()[len(whole) :][:keep]
    ledger.path.write_bytes(whole + torn)

    assert [entry.bundle for entry in ledger.entries()] == [A]

    append(ledger, C, 1)

    assert [entry.bundle for entry in ledger.entries()] == [A, C]


def test_a_field_that_lines_lack_leaves_the_chain_valid(ledger: PromotionLedger) -> None:
    """The chain is taken over lines as stored, so older lines may lack a field that has a default."""
    append(ledger, A, 0)
    value = json.loads(ledger.path.read_bytes())
    del value["notes"], value["signature"]
    value["signature"] = KEY.sign("ledger entry", value)
    ledger.path.write_bytes(rfc8785.dumps(value) + b"\n")

    append(ledger, B, 1)

    assert [entry.bundle for entry in ledger.entries()] == [A, B]


@pytest.mark.parametrize(
    "spell",
    [
        lambda line: line.replace(b'":', b'": ', 1),
        lambda line: line + b" ",
        lambda line: b'{"bundle":"' + C.encode() + b'",' + line[1:],
        lambda line: line.replace(b'"sequence":1', b'"sequence":1.0'),
        lambda line: line.replace(b'"loans"', b'"\\u006coans"'),
    ],
    ids=["space inside", "space behind", "field twice", "number", "escape"],
)
def test_a_line_in_other_bytes_than_were_signed_is_refused(ledger: PromotionLedger, spell: Any) -> None:
    """The same value in another spelling is another line."""
    append(ledger, A, 0)
    line = ledger.path.read_bytes().rstrip(b"\n")
    assert spell(line) != line
    ledger.path.write_bytes(spell(line) + b"\n")

    with pytest.raises(LedgerError, match="line 1 holds other bytes than were signed"):
        ledger.entries()
