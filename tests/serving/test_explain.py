"""`?explain=full` and `?explain=counterfactual`: more than every answer carries, and recorded as it was answered."""

import asyncio
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import create_model

from cde_domain.application import Actionable, field
from cde_domain.decisions.engine import DecisionEngine
from cde_serving import batch, deciding, explanations
from cde_serving.experiments import Participant
from cde_serving.kill_switch import turn
from cde_serving.records.replay import Replayer
from tests.serving.helpers import EVIDENCE, SCORE, Desk, Releases, wait_for
from tests.support import NAME

DECISIONS = "/api/v1/credit/decisions"
POOR = {
    "annual_income": 30000.0,
    "loan_amount": 9000.0,
    "credit_history": {"score": 500.0, "accounts": [{"balance": 9000.0}]},
}


def ask(desk: Desk, explain: str, **changes: Any) -> httpx.Response:
    return desk.client.post(f"{SCORE}?explain={explain}", json={**desk.example, **changes})


def again(desk: Desk, decision_id: str, kind: str) -> httpx.Response:
    return desk.client.get(f"{DECISIONS}/{decision_id}/explanation?kind={kind}")


def test_a_full_explanation_adds_lime_and_importance_to_the_answer(desk: Desk):
    answered = ask(desk, "full").json()
    bundle = desk.scorer.releases.serving
    assert bundle is not None

    explanation = answered["explanation"]

    names = set(bundle.engine.model.feature_names)
    assert names == set(explanation["contributions"]) == set(explanation["lime"]["weights"])
    assert names == set(explanation["importance"])
    assert list(explanation["importance"].values()) == sorted(explanation["importance"].values(), reverse=True)
    assert explanation["lime"]["weights"]["bureau_score"] != 0.0
    assert [] == explanation["unavailable"]
    plain = desk.score().json()
    assert plain["explanation"].items() <= explanation.items()
    assert plain["score"] == answered["score"]


def test_what_was_explained_is_recorded_byte_for_byte_and_replays(desk: Desk):
    answered = ask(desk, "full")
    decision_id = answered.json()["decision_id"]

    assert answered.content == desk.client.get(f"{DECISIONS}/{decision_id}").content
    replay = Replayer(desk.scorer.log.store, desk.scorer.releases.store.bundles).replay(decision_id)
    assert replay is not None
    assert "identical" == replay.outcome


def test_the_same_decision_is_explained_alike_again(desk: Desk):
    """LIME draws at random: from a seed that follows from the decision."""
    answered = ask(desk, "full").json()

    later = again(desk, answered["decision_id"], "full").json()

    assert answered["explanation"] == later["explanation"]


def where_loans_can_be_smaller(desk: Desk) -> None:
    """Serve the same model to applicants who can ask for a smaller loan."""
    bundle = desk.scorer.releases.serving
    assert bundle is not None
    amount = field("Amount", purpose="test", gt=0, le=1e7, actionable=Actionable("Ask for less", "lower", step=100))
    changeable = create_model("Changeable", __base__=bundle.portfolio.application, loan_amount=(float, amount))
    portfolio = replace(bundle.portfolio, application=changeable)
    engine = DecisionEngine(portfolio, bundle.engine.model, bundle.engine.policy)
    desk.scorer.releases.serving = replace(bundle, engine=engine)


def test_a_counterfactual_is_what_the_engine_approves(desk: Desk):
    where_loans_can_be_smaller(desk)
    large = {"annual_income": 60000.0, "loan_amount": 55000.0}
    answered = ask(desk, "counterfactual", **large).json()
    assert "APPROVED" != answered["decision"]

    found = answered["explanation"]["counterfactual"]

    (change,) = found["changes"]
    assert ("loan_amount", 55000.0) == (change["field"], change["before"])
    assert change["sentence"].startswith("Ask for less from 55,000 to ")
    followed = desk.score(**{**large, "loan_amount": change["after"]}).json()
    assert ("APPROVED", found["score"]) == (followed["decision"], followed["score"])


def test_without_recourse_the_answer_says_why(desk: Desk):
    declined = ask(desk, "counterfactual", **POOR).json()["explanation"]
    approved = ask(desk, "counterfactual").json()["explanation"]

    assert (None, None) == (declined["counterfactual"], approved["counterfactual"])
    assert ["nothing the applicant can change is known to help"] == declined["unavailable"]
    assert ["approved as it is"] == approved["unavailable"]


@pytest.mark.parametrize("query", ["explain=everything", "explain=", "explain=full&explain=full", "explain=plain"])
def test_an_unknown_explanation_is_refused_and_nothing_is_decided(desk: Desk, query: str):
    refused = desk.client.post(f"{SCORE}?{query}", json=desk.example)

    assert (422, "explain") == (refused.status_code, refused.json()["detail"][0]["field"])
    assert 0 == desk.scorer.log.count()


def test_a_key_is_for_one_kind_of_explanation(desk: Desk):
    key = {"Idempotency-Key": "k"}
    first = desk.client.post(f"{SCORE}?explain=full", json=desk.example, headers=key)

    assert first.content == desk.client.post(f"{SCORE}?explain=full", json=desk.example, headers=key).content
    assert 422 == desk.client.post(SCORE, json=desk.example, headers=key).status_code


def test_without_lime_the_answer_says_why_there_is_none(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lime.lime_tabular", None)  # what a service without the package finds

    explanation = ask(desk, "full").json()["explanation"]

    assert explanation["lime"] is None
    assert explanation["importance"]
    assert ["lime: the package lime is not installed in this service"] == explanation["unavailable"]


def test_a_second_opinion_that_fails_takes_no_decision_with_it(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    def failing(*_: Any, **__: Any) -> None:
        raise ValueError("a value of the applicant's")

    monkeypatch.setattr(explanations, "lime_surrogate", failing)

    answered = ask(desk, "full")

    assert 200 == answered.status_code
    assert ["lime: failed with ValueError"] == answered.json()["explanation"]["unavailable"]


def test_more_explanations_than_can_wait_are_refused_unrecorded(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(explanations, "MOST_WAITING", 2)

    async def many() -> list[int]:
        asked = [desk.client.send("POST", f"{SCORE}?explain=full", json=desk.example) for _ in range(6)]
        return [one.status_code for one in await asyncio.gather(*asked)]

    statuses = asyncio.run(many())

    assert {200, 503} == set(statuses)
    assert statuses.count(200) == desk.scorer.log.count()


def stop(desk: Desk) -> None:
    """Stop automatic decisions from outside the event loop, until the service knows."""
    recording = threading.Thread(target=lambda: asyncio.run(turn(desk.scorer.log, NAME, "stop_auto", by="person:o")))
    recording.start()
    recording.join()
    wait_for(lambda: desk.scorer.switch.stopped, 2)


def test_a_stop_holds_for_what_was_decided_and_is_still_being_explained(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    lime_surrogate = explanations.lime_surrogate

    def slow(*given: Any, **named: Any) -> Any:
        stop(desk)
        return lime_surrogate(*given, **named)

    monkeypatch.setattr(explanations, "lime_surrogate", slow)

    answered = ask(desk, "full")

    answer = answered.json()
    assert ("MANUAL_REVIEW", ["AUTOMATIC_DECISIONS_STOPPED"]) == (answer["decision"], answer["reason_codes"])
    assert "fallback" == answer["explanation"]["decided_by"]
    assert answer["explanation"]["lime"]["weights"]
    assert answered.content == desk.client.get(f"{DECISIONS}/{answer['decision_id']}").content
    (replay,) = Replayer(desk.scorer.log.store, desk.scorer.releases.store.bundles).replay_all()
    assert "identical" == replay.outcome
    assert 'cde_decisions_total{decided_by="fallback",decision="MANUAL_REVIEW"' in desk.client.get("/metrics").text


def test_a_stop_holds_for_what_was_decided_and_awaits_its_recourse(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    where_loans_can_be_smaller(desk)
    find = explanations.RecourseFinder.find

    def slow(*given: Any) -> Any:
        stop(desk)
        return find(*given)

    monkeypatch.setattr(explanations.RecourseFinder, "find", slow)

    answer = ask(desk, "counterfactual", **POOR).json()

    assert ["AUTOMATIC_DECISIONS_STOPPED"] == answer["reason_codes"]
    assert ["a person decides, whatever the application says"] == answer["explanation"]["unavailable"]


def test_a_stop_holds_for_what_a_batch_decided_and_did_not_record(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    def decided(*given: Any, **named: Any) -> Any:
        decisions = deciding.decide_all(*given, **named)
        stop(desk)
        return decisions

    monkeypatch.setattr(batch, "decide_all", decided)

    (result,) = desk.client.post(SCORE + "/batch", json={"applications": [desk.example]}).json()["results"]

    assert ["AUTOMATIC_DECISIONS_STOPPED"] == result["answer"]["reason_codes"]


def test_a_retired_model_still_explains_until_its_bundle_is_gone(
    desk: Desk, releases: Releases, bundles: tuple[Path, Path]
):
    answered = ask(desk, "full").json()
    releases.promote(bundles[1])
    desk.scorer.releases.refresh()

    assert answered["explanation"] == again(desk, answered["decision_id"], "full").json()["explanation"]

    other = desk.score().json()["decision_id"]
    releases.promote(bundles[0])
    desk.scorer.releases.refresh()
    shutil.rmtree(releases.store.bundles / bundles[1].name)
    assert 409 == again(desk, other, "full").status_code


def test_a_challengers_decision_is_explained_before_anybody_promotes_it(
    desk: Desk, releases: Releases, bundles: tuple[Path, Path]
):
    shutil.copytree(bundles[1], releases.store.bundles / bundles[1].name)
    challenger = Participant(bundle=bundles[1].name, evidence=EVIDENCE)
    releases.store.experiments.start(
        "autumn", portfolio=NAME, challenger=challenger, weight=1.0, by="test", key=releases.key
    )
    plan = desk.scorer.plan
    assert plan is not None
    wait_for(lambda: plan.plan.weight == 1.0, 2)

    answered = ask(desk, "full").json()

    assert "challenger" == answered["variant"]
    assert answered["explanation"] == again(desk, answered["decision_id"], "full").json()["explanation"]


def test_an_explanation_of_what_is_unknown_is_404_and_of_no_kind_422(desk: Desk):
    assert 404 == again(desk, "0" * 32, "full").status_code
    assert 404 == again(desk, "nonsense", "full").status_code
    assert 422 == again(desk, "0" * 32, "lime").status_code
