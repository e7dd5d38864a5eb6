"""Tests for `cde_serving.records.replay`: any past decision can be taken again."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cde_serving.records.erasure import Eraser
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.records.replay import Replayer
from cde_serving.records.schema import records
from cde_serving.records.store import RecordStore
from tests.serving.helpers import Desk, Releases

Bundles = tuple[Path, Path]

APPLICATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"annual_income": 20000.0, "loan_amount": 18000.0},
    {"credit_history": {"score": 320.0, "accounts": []}},
    {"credit_history": None},
    {"annual_income": 9e7},
    {"loan_purpose": "other", "employed_since": None},
)


def replayer(desk: Desk, *more: Path) -> Replayer:
    """A replayer in another process would have the same: the database, the master key and the bundles."""
    return Replayer(
        RecordStore(desk.scorer.log.read_engine, desk.scorer.log.master), desk.scorer.releases.store.bundles, *more
    )


@pytest.fixture
def decided(desk: Desk) -> list[str]:
    """The ids of approvals, rejections, knock-outs and reviews."""
    return [desk.score(**changes).json()["decision_id"] for changes in APPLICATIONS]


def test_every_decision_is_taken_again_to_the_bit(desk: Desk, decided: list[str]) -> None:
    """Score, decision, reasons and contributions, from the features and from the request."""
    again = list(replayer(desk).replay_all())

    assert [(decision_id, "identical", True) for decision_id in decided] == [
        (one.record_id, one.outcome, one.from_request) for one in again
    ]


def test_a_retired_models_decision_is_taken_again_by_that_model(
    desk: Desk, releases: Releases, bundles: Bundles, decided: list[str]
) -> None:
    """What is served now does not matter."""
    releases.promote(bundles[1])
    desk.scorer.releases.refresh()
    newer = desk.score().json()["decision_id"]

    assert {"identical"} == {one.outcome for one in replayer(desk).replay_all()}
    assert newer in {one.record_id for one in replayer(desk).replay_all()}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"score": 0.123456}, "score from the features differ"),
        ({"features": {"annual_income": 1000.0}}, "decision from the features differ"),
        ({"request": b""}, "the bundle raised ValidationError"),
    ],
)
def test_a_record_that_is_not_what_was_decided_is_told(
    desk: Desk, decided: list[str], changed: dict[str, Any], told: str
) -> None:
    """Replaying is a check of the record, too."""
    record = desk.scorer.log.get(decided[0], DEFAULT_TENANT)
    assert record is not None
    features = {**record.payload.features, **changed.pop("features", {})}
    payload = record.payload.__replace__(**{"features": features, **changed})
    asyncio.run(desk.scorer.log.record(replace(record, record_id="f" * 32, payload=payload)))

    again = replayer(desk).replay("f" * 32)

    assert again is not None
    assert again.outcome != "identical"
    assert told in again.detail


def test_another_code_is_held_against_the_features_alone(
    desk: Desk, decided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features computed by other code may differ rightly; what the model makes of the recorded ones may not."""
    monkeypatch.setattr("cde_serving.records.versions.platform_code", lambda: "another")

    again = list(replayer(desk).replay_all())

    assert {("identical", False)} == {(one.outcome, one.from_request) for one in again}


def test_an_erased_decision_is_told_as_such(desk: Desk, decided: list[str]) -> None:
    """Erasure is no fault of the log."""
    eraser = Eraser(desk.scorer.log, "tiny_loans", retention_days=0, by="person:officer")
    asyncio.run(eraser.erase("customer-1", at_once=True))

    assert {"erased"} == {one.outcome for one in replayer(desk).replay_all()}


def test_a_missing_bundle_is_told(desk: Desk, decided: list[str], bundles: Bundles, tmp_path: Path) -> None:
    """Without the model nothing is claimed; from another folder of bundles it works."""
    shutil.copytree(bundles[0], tmp_path / "elsewhere" / bundles[0].name)
    shutil.rmtree(desk.scorer.releases.store.bundles)

    assert {"impossible"} == {one.outcome for one in replayer(desk).replay_all()}
    assert {"identical"} == {one.outcome for one in replayer(desk, tmp_path / "elsewhere").replay_all()}


def test_a_damaged_record_does_not_end_the_replay_of_the_others(desk: Desk, decided: list[str]) -> None:
    """Each decision stands for itself."""
    engine = sa.create_engine(desk.scorer.log.read_engine.url)
    with engine.begin() as connection:
        connection.execute(sa.update(records).where(records.c.record_id == decided[2]).values(payload=b"damaged"))

    outcomes = {one.record_id: one.outcome for one in replayer(desk).replay_all()}

    assert "impossible" == outcomes.pop(decided[2])
    assert {"identical"} == set(outcomes.values())
