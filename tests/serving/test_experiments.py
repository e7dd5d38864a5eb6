"""Tests for experiments: who decides beside the champion, for whom, and in whose shadow."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785
import sqlalchemy as sa

from cde_domain.decisions.variants import assigned
from cde_resources.service import counters_of
from cde_serving.experiments import ExperimentError, ExperimentLog, Participant
from cde_serving.plan import PlanFollower
from cde_serving.records.record import DEFAULT_TENANT, Payload
from cde_serving.records.replay import Replayer
from cde_serving.records.schema import records
from cde_serving.records.store import RecordStore
from cde_serving.records.versions import VersionsOf
from cde_serving.shadows import Seen, Shadows
from tests.serving.helpers import EVIDENCE, NOON, Desk, Releases, wait_for
from tests.support import NAME

Bundles = tuple[Path, Path]

CUSTOMERS = [f"customer-{number}" for number in range(60)]


def participant(releases: Releases, bundle: Path) -> Participant:
    """A bundle that lies where bundles are looked for."""
    target = releases.store.bundles / bundle.name
    if not target.exists():
        shutil.copytree(bundle, target)
    return Participant(bundle=bundle.name, evidence=EVIDENCE)


def start(
    releases: Releases, challenger: Path | None, weight: float, *shadows: Path, name: str = "autumn", **more: Any
) -> None:
    """Start an experiment with the platform's key."""
    releases.store.experiments.start(
        name,
        portfolio=NAME,
        challenger=participant(releases, challenger) if challenger else None,
        weight=weight,
        shadows=tuple(participant(releases, shadow) for shadow in shadows),
        **{"by": "test", "key": releases.key, **more},
    )


@pytest.fixture
def experiments(releases: Releases, bundles: Bundles) -> ExperimentLog:
    """A log in which one experiment runs."""
    start(releases, bundles[1], 0.25)
    return releases.store.experiments


class TestExperimentLog:
    """One experiment at a time, each change signed."""

    def test_what_holds_is_said_by_the_last_entry(self, experiments: ExperimentLog, releases: Releases) -> None:
        """Start, another weight, stop."""
        experiments.change_weight(0.5, by="test", key=releases.key, reason="no complaints")
        current = experiments.current()
        experiments.stop(by="test", key=releases.key)

        assert current is not None
        assert ("autumn", 0.5, "no complaints") == (current.experiment, current.weight, current.reason)
        assert current.challenger is not None
        assert None is experiments.current()
        assert ["start", "weight", "stop"] == [entry.action for entry in experiments.entries()]

    def test_a_second_experiment_waits_for_the_first_to_end(
        self, experiments: ExperimentLog, releases: Releases, bundles: Bundles
    ) -> None:
        """And needs a name of its own."""
        with pytest.raises(ExperimentError, match="autumn runs; stop that first"):
            start(releases, bundles[1], 0.1, name="winter")
        experiments.stop(by="test", key=releases.key)
        with pytest.raises(ExperimentError, match="used before"):
            start(releases, bundles[1], 0.1)
        start(releases, bundles[1], 0.1, name="winter")

    @pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
    def test_a_weight_is_a_share(self, releases: Releases, bundles: Bundles, weight: float) -> None:
        """Nothing is written that no reader would take."""
        with pytest.raises(ExperimentError, match="weight: "):
            start(releases, bundles[1], weight)
        assert () == releases.store.experiments.entries()

    def test_a_name_that_cannot_be_one_is_refused_in_a_sentence(self, releases: Releases, bundles: Bundles) -> None:
        with pytest.raises(ExperimentError, match="experiment: String should match"):
            start(releases, bundles[1], 0.1, name="Bad Name")

    def test_nobody_takes_part_in_nothing(self, releases: Releases, bundles: Bundles) -> None:
        """An experiment has a challenger or shadows, and a weight only with a challenger."""
        with pytest.raises(ExperimentError, match="needs a challenger or shadows"):
            start(releases, None, 0.0)
        with pytest.raises(ExperimentError, match="no challenger that it could be of"):
            start(releases, None, 0.5, bundles[1])
        with pytest.raises(ExperimentError, match="no experiment runs"):
            releases.store.experiments.change_weight(0.5, by="test", key=releases.key)

    def test_a_weight_written_by_hand_is_refused(self, experiments: ExperimentLog) -> None:
        """Only what the platform signed counts."""
        entry = json.loads(experiments.path.read_bytes())
        experiments.path.write_bytes(rfc8785.dumps({**entry, "weight": 1.0}) + b"\n")

        with pytest.raises(ExperimentError, match="line 1 bears a signature that does not match"):
            experiments.entries()


@pytest.fixture
def follower(releases: Releases) -> Iterator[PlanFollower]:
    follower = PlanFollower(releases.store)
    yield follower
    follower.close()


class TestPlanFollower:
    """A running service follows within two seconds, and in doubt the champion decides alone."""

    def test_weights_change_without_a_restart(
        self, releases: Releases, bundles: Bundles, follower: PlanFollower
    ) -> None:
        """From start to stop."""
        assert None is follower.plan.experiment
        start(releases, bundles[1], 0.05)
        wait_for(lambda: follower.plan.weight == 0.05, 2)
        assert follower.plan.challenger is not None
        assert bundles[1].name == follower.plan.challenger.digest
        releases.store.experiments.change_weight(1.0, by="test", key=releases.key)
        wait_for(lambda: follower.plan.weight == 1.0, 2)
        releases.store.experiments.stop(by="test", key=releases.key)
        wait_for(lambda: follower.plan.challenger is None, 2)

    @pytest.mark.parametrize("damage", ["forged", "cut", "bundle"])
    def test_in_doubt_the_champion_decides_alone(self, releases: Releases, bundles: Bundles, damage: str) -> None:
        """A forged line, a log that lost its end, a changed bundle: told, and no challenger."""
        start(releases, bundles[1], 0.5)
        log = releases.store.experiments
        whole = log.path.read_bytes()
        if damage == "bundle":
            policy = releases.store.bundles / bundles[1].name / "policy.yaml"
            policy.write_bytes(policy.read_bytes() + b"\n")
        else:
            log.change_weight(1.0, by="test", key=releases.key)
        follower = PlanFollower(releases.store)
        if damage == "forged":
            log.path.write_bytes(whole + b'{"weight": 1}\n')
        elif damage == "cut":
            log.path.write_bytes(whole)

        wait_for(lambda: follower.plan.problem is not None, 2)

        assert (None, 0.0) == (follower.plan.challenger, follower.plan.weight)
        follower.close()


def variants_of(desk: Desk) -> dict[str, tuple[str, str]]:
    answers = {customer: desk.score(customer_id=customer).json() for customer in CUSTOMERS}
    return {customer: (answer["variant"], answer["model_version"]) for customer, answer in answers.items()}


def of_role(rows: list[Any], kind: str) -> list[Any]:
    return [row for row in rows if row.kind == kind]


def all_records(desk: Desk) -> list[Any]:
    store = RecordStore(desk.scorer.log.read_engine, desk.scorer.log.master)
    found = [store.get(*named, ("decision", "shadow")) for named in store.ids(("decision", "shadow"))]
    return [record for record in found if record is not None]


class TestChallenger:
    """The challenger answers a share of the customers, always the same ones."""

    def test_a_customer_keeps_the_variant_while_the_weight_grows(
        self, desk: Desk, releases: Releases, bundles: Bundles
    ) -> None:
        """Answer and record name variant and version; none goes back to the champion."""
        start(releases, bundles[1], 0.3)
        plan = desk.scorer.plan
        assert plan is not None
        wait_for(lambda: plan.plan.weight == 0.3, 2)
        first, again = variants_of(desk), variants_of(desk)
        releases.store.experiments.change_weight(0.7, by="test", key=releases.key)
        wait_for(lambda: plan.plan.weight == 0.7, 2)
        wider = variants_of(desk)

        assert first == again
        versions = {"champion": bundles[0].name[:12], "challenger": bundles[1].name[:12]}
        assert all(version == versions[variant] for variant, version in [*first.values(), *wider.values()])
        challenged, later = (
            {customer for customer, (variant, _) in seen.items() if variant == "challenger"} for seen in (first, wider)
        )
        assert set() < challenged < later < set(CUSTOMERS)
        for record in all_records(desk):
            assert record.versions.bundle.startswith(versions[record.variant])
            answer = msgspec.json.decode(record.payload.answer)
            assert (record.variant, record.versions.bundle[:12]) == (answer["variant"], answer["model_version"])

    def test_its_time_is_counted_apart(self, desk: Desk, releases: Releases, bundles: Bundles) -> None:
        """By which an experiment notices a challenger that is slow, however many decisions are the champion's."""
        start(releases, bundles[1], 0.5)
        plan = desk.scorer.plan
        assert plan is not None
        wait_for(lambda: plan.plan.weight == 0.5, 2)

        challenged = [variant for variant, _ in variants_of(desk).values()].count("challenger")

        counters = counters_of(desk.client.get("/metrics").text, NAME, slow_after_ms=5000.0)
        assert counters is not None
        assert (len(CUSTOMERS), challenged, 0) == (counters.requests, counters.timed, counters.slow)

    def test_it_is_drawn_by_token_and_not_by_the_customers_id(
        self, desk: Desk, releases: Releases, bundles: Bundles
    ) -> None:
        """Who could choose an id could choose a model."""
        start(releases, bundles[1], 0.5)
        plan = desk.scorer.plan
        assert plan is not None
        wait_for(lambda: plan.plan.weight == 0.5, 2)

        seen = {customer: variant for customer, (variant, _) in variants_of(desk).items()}

        token = desk.scorer.log.master.token
        assert seen == {one: assigned(token("customer", "default", one), "autumn", 0.5).value for one in CUSTOMERS}
        assert seen != {one: assigned(one, "autumn", 0.5).value for one in CUSTOMERS}

    def test_a_promoted_challenger_is_the_champion(self, desk: Desk, releases: Releases, bundles: Bundles) -> None:
        """With nothing left to compare everybody is answered by it, as champion."""
        start(releases, bundles[1], 0.5)
        plan = desk.scorer.plan
        assert plan is not None
        wait_for(lambda: plan.plan.weight == 0.5, 2)

        releases.promote(bundles[1])
        desk.scorer.releases.refresh()

        assert {("champion", bundles[1].name[:12])} == set(variants_of(desk).values())

    def test_a_swap_in_the_middle_of_a_request_does_not_mix_two_models(
        self, desk: Desk, bundles: Bundles, releases: Releases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Answer, record and digests are of the one bundle that was taken at the beginning."""
        first = desk.scorer.releases.serving
        assert first is not None
        decide_rows = first.engine.decide_rows

        def swapped(*arguments: Any) -> Any:
            releases.promote(bundles[1])
            desk.scorer.releases.refresh()
            return decide_rows(*arguments)

        monkeypatch.setattr(first.engine, "decide_rows", swapped)

        answer = desk.score().json()

        assert desk.scorer.releases.serving is not first
        record = desk.scorer.log.get(answer["decision_id"], DEFAULT_TENANT)
        assert record is not None
        assert bundles[0].name[:12] == answer["model_version"]
        assert bundles[0].name == record.versions.bundle
        replayed = Replayer(desk.scorer.log.store, releases.store.bundles).replay(answer["decision_id"])
        assert replayed is not None
        assert "identical" == replayed.outcome


class TestShadows:
    """Shadows decide what was answered, and nobody is answered by them."""

    @pytest.fixture
    def shadowed(self, desk: Desk, releases: Releases, bundles: Bundles) -> Desk:
        start(releases, None, 0.0, bundles[1])
        plan = desk.scorer.plan
        assert plan is not None
        wait_for(lambda: len(plan.plan.shadows) == 1, 2)
        return desk

    def test_a_shadow_decision_is_recorded_about_the_answered_one(self, shadowed: Desk, bundles: Bundles) -> None:
        """In the same chain, by the other bundle, and it replays."""
        answers = {shadowed.score(customer_id=customer).json()["decision_id"] for customer in CUSTOMERS[:5]}
        wait_for(lambda: len(all_records(shadowed)) == 10, 5)

        found = all_records(shadowed)
        assert {"champion"} == {record.variant for record in of_role(found, "decision")}
        shadows = of_role(found, "shadow")
        assert answers == {record.payload.about for record in shadows}
        assert {(bundles[1].name, "shadow")} == {(record.versions.bundle, record.variant) for record in shadows}
        replayer = Replayer(shadowed.scorer.log.store, shadowed.scorer.releases.store.bundles)
        assert [("identical", True)] * 10 == [(one.outcome, one.from_request) for one in replayer.replay_all()]

    def test_a_shadow_decision_is_not_given_out(self, shadowed: Desk) -> None:
        """GET knows the answered decision alone."""
        answered = shadowed.score().json()["decision_id"]
        wait_for(lambda: len(all_records(shadowed)) == 2, 5)
        (shadow,) = of_role(all_records(shadowed), "shadow")

        assert 200 == shadowed.client.get(f"/api/v1/credit/decisions/{answered}").status_code
        assert 404 == shadowed.client.get(f"/api/v1/credit/decisions/{shadow.record_id}").status_code
        assert 1 == shadowed.scorer.log.count()

    def test_a_repeated_request_has_one_shadow(self, shadowed: Desk) -> None:
        """What is answered from the log was not decided again."""
        for _ in range(3):
            body = {"json": shadowed.example, "headers": {"idempotency-key": "once"}}
            shadowed.client.post("/api/v1/credit/score", **body)
        time.sleep(0.3)

        assert 1 == len(of_role(all_records(shadowed), "shadow"))

    def test_no_answer_waits_for_a_shadow(
        self, shadowed: Desk, monkeypatch: pytest.MonkeyPatch, bundles: Bundles
    ) -> None:
        """While a shadow hangs answers come, and what does not fit into the queue is dropped and counted."""
        fates: list[str] = []
        let_go = threading.Event()
        plan = shadowed.scorer.plan
        assert plan is not None
        (shadow,) = plan.plan.shadows
        monkeypatch.setattr(shadow.engine, "decide", lambda *_: let_go.wait(20))
        shadows = Shadows(shadowed.scorer.log, VersionsOf(), fates.append, waiting_limit=3)
        monkeypatch.setattr(shadowed.scorer, "_shadows", shadows)

        statuses = {shadowed.score(customer_id=customer).status_code for customer in CUSTOMERS[:10]}

        assert {200} == statuses
        assert 6 <= fates.count("dropped") <= 7
        let_go.set()
        shadows.close()
        assert {"dropped", "failed"} == set(fates)


def test_a_full_log_fails_shadows_and_not_the_thread(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread goes on after whatever happened to one."""
    fates: list[str] = []
    bundle = desk.scorer.releases.serving
    assert bundle is not None
    shadows = Shadows(desk.scorer.log, VersionsOf(), fates.append)
    request = json.dumps(desk.example).encode()

    def seen(request: bytes) -> Seen:
        return Seen("0" * 32, "default", request, (), None, NOON, (bundle,))

    shadows.offer(seen(b"{}"))
    shadows.offer(seen(request))
    wait_for(lambda: len(fates) == 2, 5)
    shadows.close()

    assert {"failed", "recorded"} == set(fates)
    with desk.scorer.log.read_engine.connect() as connection:
        assert 1 == list(connection.execute(sa.select(records.c.kind)).scalars()).count("shadow")


def test_a_payload_of_before_these_fields_is_still_read() -> None:
    """A record written without `fetched` and `about` has five parts."""
    old = msgspec.msgpack.encode(["customer-1", b"{}", {}, 0.5, b"{}"])

    payload = msgspec.msgpack.decode(old, type=Payload)

    assert ((), None) == (payload.fetched, payload.about)
