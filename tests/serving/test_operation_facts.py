"""Facts of the running service: believed only as the platform signed them, and never lost in silence."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cde_domain.governance.facts import Fact
from cde_domain.governance.rulebook import Rulebook
from cde_domain.governance.verdicts import Status, evaluate
from cde_serving.operation import OperationFacts, OperationFactsError, read_operation_facts, write_operation_facts
from cde_serving.signing import SigningKey, TrustedKeys

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
KEY = SigningKey.generate()
RULEBOOK = Rulebook.read()
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


def _write(folder: Path, *facts: Fact, artefact: str = "replay.json", key: SigningKey = KEY, **changes: str) -> Path:
    stated = {"portfolio": "car_loans", "bundle": "b" * 64} | changes
    return write_operation_facts(folder, artefact, facts or REPLAYED, measured_at=NOON, key=key, **stated)


def _read(folder: Path, now: datetime = NOON) -> list[OperationFacts]:
    trusted = TrustedKeys({KEY.public.id: KEY.public}, {KEY.public.id: "signing"})
    return read_operation_facts(folder, RULEBOOK, portfolio="car_loans", trusted=trusted, now=now)


def _status(folder: Path, rule: str) -> tuple[Status, bool]:
    facts = [fact for measured in _read(folder) for fact in measured.as_facts()]
    results = evaluate(RULEBOOK, facts, "IN", thresholds=THRESHOLDS, today=NOON.date())
    return next((result.status, result.blocks) for result in results if result.id == rule)


def test_nothing_measured_is_not_yet_measured_and_what_was_measured_decides_its_rule(tmp_path: Path) -> None:
    assert _status(tmp_path, "DEC-02") == (Status.NOT_YET_MEASURED, False)
    _write(tmp_path)
    assert _status(tmp_path, "DEC-02") == (Status.PASS, False)
    _write(tmp_path, REPLAYED[0], Fact("decision_mismatches", "replay.json", 3.0), REPLAYED[2])
    assert _status(tmp_path, "DEC-02") == (Status.FAIL, True)


def test_words_truths_and_intervals_come_back_as_they_were_measured(tmp_path: Path) -> None:
    facts = (
        Fact("kek_in_same_store", "crypto_check.json", False),
        Fact("pseudonym_scheme", "crypto_check.json", "HMAC-SHA-256"),
        Fact("rows_not_aead", "crypto_check.json", 0.0, (0.0, 2.0), "decisions", sufficient=False),
    )
    _write(tmp_path, *facts, artefact="crypto_check.json")
    (measured,) = _read(tmp_path)
    assert measured.as_facts() == list(facts)


def _edit(path: Path) -> None:
    path.write_text(path.read_text().replace("500.0", "900.0"))


BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("edited", lambda folder: _edit(_write(folder)), "replay.json bears a signature that does not match"),
    ("another key", lambda folder: _write(folder, key=SigningKey.generate()), "which is not trusted"),
    ("another portfolio", lambda folder: _write(folder, portfolio="other"), "is about other"),
    ("a copy", lambda folder: _write(folder).rename(folder / "drill.json"), "is a copy of replay.json"),
    ("truncated", lambda folder: _write(folder).write_bytes(b'{"format"'), "is damaged"),
    ("not typed", lambda folder: _write(folder).write_text(json.dumps({"format": 2})), "is no report of operation"),
]


@pytest.mark.parametrize(("spoil", "told"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_file_that_cannot_be_believed_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], object], told: str
) -> None:
    spoil(tmp_path)
    with pytest.raises(OperationFactsError, match=told) as refused:
        _read(tmp_path)
    assert str(refused.value).startswith("operation/")


def test_a_measurement_of_tomorrow_is_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    with pytest.raises(OperationFactsError, match="dated in the future"):
        _read(tmp_path, NOON - timedelta(days=1))


@pytest.mark.parametrize(
    "fact",
    [Fact("auc", "replay.json", 0.99), Fact("days_since_drill", "replay.json", 1.0)],
    ids=lambda fact: fact.metric,
)
def test_the_service_cannot_measure_what_is_not_asked_of_that_report(tmp_path: Path, fact: Fact) -> None:
    with pytest.raises(
        OperationFactsError, match=f"holds {fact.metric}, for which no rule of operation asks replay.json"
    ):
        _write(tmp_path, fact)
    with pytest.raises(OperationFactsError, match="is no name of a report"):
        _write(tmp_path, artefact="../replay.json")
