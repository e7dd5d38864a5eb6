"""What goes wrong inside a decision ends with a person, recorded, and never in an approval or a 500."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cde_domain.release import Bundle
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.records.replay import Replayer
from cde_serving.records.store import RecordStore
from tests.serving.helpers import Desk


@pytest.fixture
def bundle(desk: Desk) -> Bundle:
    served = desk.scorer.releases.serving
    assert served is not None
    return served


def routed(answer: Any) -> tuple[int, str, list[str], float | None]:
    body = answer.json()
    return answer.status_code, body["decision"], body["reason_codes"], body["score"]


def raising(*_: object, **__: object) -> None:
    raise OverflowError("income of customer-1 is 60000")


@pytest.mark.parametrize("where", ["decide_all", "decide_rows"])
def test_an_exception_in_a_decision_sends_it_to_a_person(
    desk: Desk, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    """The request is recorded, and the exception's message nowhere."""
    monkeypatch.setattr(bundle.engine, where, raising)

    answer = desk.score()

    assert (200, "MANUAL_REVIEW", ["DECISION_FAILED"], None) == routed(answer)
    record = desk.scorer.log.get(answer.json()["decision_id"], DEFAULT_TENANT)
    assert record is not None
    assert b'"annual_income":60000.0' in record.payload.request
    assert ({}, answer.content) == (record.payload.features, record.payload.answer)
    told = capsys.readouterr().out
    assert "OverflowError" in told
    assert "customer-1" not in told


def test_a_failed_decision_is_replayed_as_one_and_told_apart_once_mended(
    desk: Desk, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same code must fail again; if it does not, the log and the code disagree."""
    monkeypatch.setattr("cde_domain.decisions.engine.feature_matrix", raising)
    decision_id = desk.score().json()["decision_id"]
    replayer = Replayer(
        RecordStore(desk.scorer.log.read_engine, desk.scorer.log.master), desk.scorer.releases.store.bundles
    )

    failing = replayer.replay(decision_id)
    monkeypatch.undo()
    mended = replayer.replay(decision_id)

    assert failing is not None
    assert mended is not None
    assert ("identical", True) == (failing.outcome, failing.from_request)
    assert ("different", "deciding failed then, and does not now") == (mended.outcome, mended.detail)


@pytest.mark.parametrize("score", [np.nan, np.inf, -0.1, 1.000001])
def test_a_score_that_is_no_probability_sends_it_to_a_person(
    desk: Desk, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, score: float
) -> None:
    """Whatever the calibrator makes of a margin, only a number from 0 to 1 decides."""
    monkeypatch.setattr(type(bundle.engine.model.calibrator), "scores", lambda *_: np.array([score]))

    assert (200, "MANUAL_REVIEW", ["SCORE_UNAVAILABLE"], None) == routed(desk.score())


def test_a_margin_that_is_no_number_sends_it_to_a_person(
    desk: Desk, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contributions that are no numbers are answered as unknown, and the decision is recorded."""
    explain: Callable[..., Any] = type(bundle.engine.model.trees).explain

    def broken(self: Any, matrix: Any) -> Any:
        margins, contributions = explain(self, matrix)
        return margins * np.nan, contributions * np.nan

    monkeypatch.setattr(type(bundle.engine.model.trees), "explain", broken)

    answer = desk.score()

    assert (200, "MANUAL_REVIEW", ["SCORE_UNAVAILABLE"], None) == routed(answer)
    replayer = Replayer(
        RecordStore(desk.scorer.log.read_engine, desk.scorer.log.master), desk.scorer.releases.store.bundles
    )
    monkeypatch.setattr("cde_domain.model.compiled.CompiledTrees.explain", broken)
    assert {"identical"} == {again.outcome for again in replayer.replay_all()}
