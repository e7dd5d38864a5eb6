"""Facts of the running service: believed only as the platform signed them, and never lost in silence."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import rfc8785

from cde_domain.governance.facts import Fact
from cde_domain.governance.rulebook import Rulebook
from cde_domain.governance.verdicts import Status, evaluate
from cde_serving.operation import (
    MAX_AGE,
    Mark,
    Measured,
    OperationFacts,
    OperationFactsError,
    OperationLog,
    write_operation_facts,
)
from cde_serving.releases import ReleaseStore
from cde_serving.signing import SigningKey

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
KEY = SigningKey.generate()
RULEBOOK = Rulebook.read()
PROMOTED = "b" * 64
THRESHOLDS = {
    "min_auc": 0.7,
    "max_calibration_error": 0.03,
    "max_single_feature_auc": 0.9,
    "min_adverse_impact_ratio": 0.8,
}
REPLAYED = (
    Fact("n_replayed", "replay.json", 500.0),
    Fact("decision_mismatches", "replay.json", 0.0),
    Fact("max_abs_score_diff", "replay.json", 0.0, (0.0, 1e-9)),
)
DIFFERS = Fact("decision_mismatches", "replay.json", 3.0)


@pytest.fixture
def log(tmp_path: Path) -> OperationLog:
    """The empty log of a portfolio with one promotion."""
    return _log(tmp_path)


def _log(folder: Path, portfolio: str = "car_loans") -> OperationLog:
    (folder / "signing.pub").write_bytes(KEY.public.pem())
    store = ReleaseStore(folder, folder / "signing.pub", portfolio=portfolio)
    if not store.ledger.entries():
        store.ledger.append(
            action="promote",
            portfolio=portfolio,
            bundle=PROMOTED,
            expected_sequence=0,
            by="test",
            evidence="e" * 64,
            key=KEY,
        )
    return store.operation


def _write(
    log: OperationLog,
    *facts: Fact,
    artefact: str = "replay.json",
    key: SigningKey = KEY,
    at: datetime = NOON,
    **changes: str,
) -> OperationFacts:
    stated = {"portfolio": "car_loans", "bundle": PROMOTED} | changes
    return write_operation_facts(log, artefact, facts or REPLAYED, measured_at=at, key=key, **stated)


def _read(log: OperationLog, now: datetime = NOON, *marks: Mark) -> Measured:
    return log.read(RULEBOOK, now=now, marks=marks)


def _status(log: OperationLog, rule: str, now: datetime = NOON) -> tuple[Status, bool]:
    results = evaluate(RULEBOOK, _read(log, now).facts(now), "IN", thresholds=THRESHOLDS, today=now.date())
    return next((result.status, result.blocks) for result in results if result.id == rule)


def test_nothing_measured_is_not_yet_measured_and_what_was_measured_last_decides_its_rule(log: OperationLog) -> None:
    assert _status(log, "DEC-02") == (Status.NOT_YET_MEASURED, False)
    _write(log)
    assert _status(log, "DEC-02") == (Status.PASS, False)
    _write(log, REPLAYED[0], DIFFERS, REPLAYED[2])
    assert _status(log, "DEC-02") == (Status.FAIL, True)
    _write(log)
    assert _status(log, "DEC-02") == (Status.PASS, False)


def test_a_report_that_leaves_the_failed_metric_out_does_not_undo_the_failure(log: OperationLog) -> None:
    _write(log, REPLAYED[0], DIFFERS, REPLAYED[2])
    _write(log, REPLAYED[0], REPLAYED[2])
    assert _status(log, "DEC-02") == (Status.FAIL, True)


def test_words_truths_and_intervals_come_back_as_they_were_measured(log: OperationLog) -> None:
    facts = (
        Fact("kek_in_same_store", "crypto_check.json", False),
        Fact("pseudonym_scheme", "crypto_check.json", "HMAC-SHA-256"),
        Fact("rows_not_aead", "crypto_check.json", 0.0, (0.0, 2.0), "decisions", sufficient=False),
    )
    _write(log, *facts, artefact="crypto_check.json")
    assert _read(log).facts(NOON) == list(facts)


def test_what_nobody_measured_for_a_quarter_shows_no_longer_that_a_rule_holds(log: OperationLog) -> None:
    _write(log)
    assert _status(log, "DEC-02", NOON + MAX_AGE) == (Status.PASS, False)
    assert _status(log, "DEC-02", NOON + MAX_AGE + timedelta(seconds=1)) == (Status.INSUFFICIENT_DATA, False)


def test_a_failure_does_not_end_by_waiting(log: OperationLog) -> None:
    _write(log, REPLAYED[0], DIFFERS, REPLAYED[2])
    assert _status(log, "DEC-02", NOON + 9 * MAX_AGE) == (Status.FAIL, True)


def _edit(log: OperationLog) -> None:
    log.path.write_bytes(log.path.read_bytes().replace(b"500", b"900"))


def _cut(log: OperationLog) -> None:
    log.path.write_bytes(b"".join(log.path.read_bytes().splitlines(keepends=True)[:-1]))


def _unsign(log: OperationLog) -> None:
    value = json.loads(log.path.read_bytes().splitlines()[0])
    del value["signature"]
    log.path.write_bytes(rfc8785.dumps(value) + b"\n")


def _put_back(log: OperationLog) -> None:
    log.path.write_bytes(log.path.read_bytes() + log.path.read_bytes().splitlines(keepends=True)[0])


BAD: list[tuple[str, Callable[[OperationLog], object], str]] = [
    ("edited", _edit, "operation.jsonl line 1 bears a signature that does not match"),
    ("not signed", _unsign, "operation.jsonl line 1 is not signed"),
    ("deleted", lambda log: log.path.unlink(), "operation.jsonl has 0 entries, but there was an entry 2"),
    ("renamed", lambda log: log.path.rename(log.path.with_suffix(".JSONL")), "but there was an entry 2"),
    ("the failure cut off", _cut, "operation.jsonl has 1 entries, but there was an entry 2"),
    ("without its newline", lambda log: log.path.write_bytes(log.path.read_bytes()[:-1]), "there was an entry 2"),
    ("an old pass put back", _put_back, "operation.jsonl line 3 has the sequence number 1"),
    ("truncated", lambda log: log.path.write_bytes(b'{"format"\n'), "operation.jsonl line 1 is damaged"),
    ("spaces", lambda log: log.path.write_bytes(log.path.read_bytes().replace(b",", b", ", 1)), "line 1 holds other b"),
    ("not typed", lambda log: log.path.write_bytes(b'{"signature":""}\n'), "line 1 is no entry: sequence"),
    ("head edited", lambda log: log.head.write_bytes(log.head.read_bytes().replace(b": 2", b": 1")), "head.json bears"),
    ("head damaged", lambda log: log.head.write_bytes(b"{"), "operation.head.json is damaged"),
]


@pytest.mark.parametrize(("spoil", "told"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_log_that_cannot_be_believed_is_refused_by_name_and_nothing_is_appended(
    log: OperationLog, spoil: Callable[[OperationLog], object], told: str
) -> None:
    _write(log)
    _write(log, REPLAYED[0], DIFFERS)
    spoil(log)
    with pytest.raises(OperationFactsError, match=told):
        _read(log)
    with pytest.raises(OperationFactsError, match=told):
        _write(log)


def test_a_log_put_back_with_its_head_is_refused_by_whoever_noted_how_far_it_reached(log: OperationLog) -> None:
    _write(log)
    before = log.path.read_bytes(), log.head.read_bytes()
    _write(log, REPLAYED[0], DIFFERS)
    noted = _read(log).mark
    log.path.write_bytes(before[0])
    log.head.write_bytes(before[1])
    with pytest.raises(OperationFactsError, match="has 1 entries, but there was an entry 2"):
        _read(log, NOON, noted)
    _write(log)
    with pytest.raises(OperationFactsError, match="line 2 is another than was there before"):
        _read(log, NOON, noted)


def test_the_log_of_another_portfolio_or_of_another_key_is_refused(log: OperationLog, tmp_path: Path) -> None:
    with pytest.raises(OperationFactsError, match="is not trusted"):
        _write(log, key=SigningKey.generate())
    with pytest.raises(OperationFactsError, match="is of the operation of other"):
        _write(log, portfolio="other")
    assert not log.path.exists()
    _write(log)
    (tmp_path / "other").mkdir()
    stranger = _log(tmp_path / "other", "other_loans")
    stranger.path.write_bytes(log.path.read_bytes())
    with pytest.raises(OperationFactsError, match="line 1 is of the operation of car_loans"):
        _read(stranger)


def test_a_measurement_of_tomorrow_or_from_before_the_last_one_is_refused(log: OperationLog) -> None:
    _write(log)
    with pytest.raises(OperationFactsError, match="line 1 is dated in the future"):
        _read(log, NOON - timedelta(days=1))
    with pytest.raises(OperationFactsError, match=r"is an older measurement of replay\.json than one before it"):
        _write(log, at=NOON - timedelta(days=1))


def test_a_measurement_of_a_bundle_that_was_never_promoted_is_refused(log: OperationLog, tmp_path: Path) -> None:
    with pytest.raises(OperationFactsError, match="is about bundle 000000000000, which was never promoted"):
        _write(log, bundle="0" * 64)
    _write(log)
    (tmp_path / "ledger.jsonl").unlink()
    with pytest.raises(OperationFactsError, match="line 1 is about bundle bbbbbbbbbbbb, which was never promoted"):
        _read(log)


@pytest.mark.parametrize(
    "fact",
    [Fact("auc", "replay.json", 0.99), Fact("days_since_drill", "replay.json", 1.0)],
    ids=lambda fact: fact.metric,
)
def test_the_service_cannot_measure_what_is_not_asked_of_that_report(log: OperationLog, fact: Fact) -> None:
    with pytest.raises(
        OperationFactsError, match=f"holds {fact.metric}, for which no rule of operation asks replay.json"
    ):
        _write(log, fact)
    with pytest.raises(OperationFactsError, match="is no name of a report"):
        _write(log, artefact="../replay.json")


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        (Fact("n_replayed", "replay.json", "many"), "n_replayed is a word, and its rule asks for a number"),
        (Fact("n_replayed", "replay.json", True), "n_replayed is a truth value, and its rule asks for a number"),
        (Fact("kek_in_same_store", "crypto_check.json", 0.0), "is a number, and its rule asks for a truth value"),
        (Fact("pseudonym_scheme", "crypto_check.json", "HMAC", (0.0, 1.0)), "a word and cannot have an interval"),
    ],
    ids=["word", "truth", "number", "interval"],
)
def test_a_fact_of_the_wrong_kind_is_refused_when_written_and_when_read(
    log: OperationLog, fact: Fact, told: str
) -> None:
    with pytest.raises(OperationFactsError, match=told):
        _write(log, fact, artefact=fact.artefact)
    assert not log.path.exists()
    stated = {
        name: value for name, value in dataclasses.asdict(fact).items() if name in ("metric", "value", "interval")
    }
    entry = {
        "portfolio": "car_loans",
        "artefact": fact.artefact,
        "bundle": PROMOTED,
        "measured_at": "2026-12-01T12:00:00Z",
        "facts": [stated | {"interval": list(fact.interval) if fact.interval else None}],
    }
    log.append(entry, KEY)  # as another program with the key would
    with pytest.raises(OperationFactsError, match=f"operation.jsonl line 1 holds a fact of the wrong kind.*{told}"):
        _read(log)
