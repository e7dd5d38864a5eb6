"""Promotions and rollbacks under load: no error, and each answer of a model that was current meanwhile."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from cde_serving.records.database import open_reader
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey
from tests.serving.helpers import SCORE, Releases, releases_in, wait_for
from tests.serving.test_log_faults import Desk, running
from tests.support import NAME, TinyLoans

CLIENTS = 4


@dataclass(frozen=True)
class Asked:
    """A request and its answer, with the times between which it was under way."""

    sent: float
    received: float
    status: int
    content: bytes


@pytest.fixture
def desk(tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path: Path) -> Iterator[Desk]:
    with running(tiny, bundles[0], tmp_path, log_level="info") as desk:
        desk.start()
        yield desk


def served(desk: Desk) -> list[tuple[float, str]]:
    """When which bundle was served, as the service itself wrote it down."""
    lines = (desk.home.parent / "service.log").read_text(encoding="utf-8").splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
    return [
        (datetime.fromisoformat(event["timestamp"]).timestamp(), event["bundle"])
        for event in events
        if event["event"] == "bundle served"
    ]


def swap(desk: Desk, releases: Releases, bundles: tuple[Path, Path], number: int) -> None:
    """Promote the second bundle, or roll back to the first, and wait until that is served."""
    if number % 2:
        releases.store.roll_back(bundles[0].name, key=releases.key, by="test")
    else:
        releases.promote(bundles[1])
    wait_for(lambda: len(served(desk)) == number + 2, 10)


def swapped_under_load(desk: Desk, bundles: tuple[Path, Path], swaps: int) -> list[Asked]:
    releases = releases_in(desk.home / NAME)
    done = threading.Event()
    asked: list[Asked] = []

    def ask(client_number: int) -> None:
        with desk._new_client() as client:
            number = 0
            while not done.is_set():
                number += 1
                body = {**desk.example, "customer_id": f"c-{client_number}-{number}"}
                sent = time.time()
                answer = client.post(SCORE, json=body)
                asked.append(Asked(sent, time.time(), answer.status_code, answer.content))

    clients = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for number in range(swaps):
            swap(desk, releases, bundles, number)
    finally:
        done.set()
        for client in clients:
            client.join()
    return asked


def assert_each_answer_is_of_a_model_that_was_current(desk: Desk, asked: list[Asked]) -> None:
    timeline = served(desk)
    ends = [*[moment for moment, _ in timeline[1:]], float("inf")]
    margin = 0.05  # the line is written just after the swap
    for one in asked:
        version = json.loads(one.content)["model_version"]
        assert any(
            bundle.startswith(version) and began - margin <= one.received and one.sent <= ended + margin
            for (began, bundle), ended in zip(timeline, ends, strict=True)
        )


def assert_answered_is_recorded(desk: Desk, asked: list[Asked]) -> None:
    master = MasterKey.open(desk.home / "keys" / "master.key", create=False)
    kept = {record_id: record for record_id, record in RecordStore(open_reader(desk.url), master).all() if record}
    scores = set()
    for one in asked:
        answer = json.loads(one.content)
        record = kept[answer["decision_id"]]
        assert one.content == record.payload.answer
        assert answer["model_version"] == record.versions.bundle[:12]
        scores.add((answer["model_version"], answer["score"]))
    assert len(asked) == len(kept)
    assert 2 == len(scores)  # one application, two models


@pytest.mark.parametrize("swaps", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_swaps_under_load_fail_nobody_and_mix_nothing(desk: Desk, bundles: tuple[Path, Path], swaps: int) -> None:
    """On a real process: answered version = recorded version, which was served at some time during the request."""
    asked = swapped_under_load(desk, bundles, swaps)

    assert {200} == {one.status for one in asked}
    assert swaps + 1 == len(served(desk))
    assert_each_answer_is_of_a_model_that_was_current(desk, asked)
    assert_answered_is_recorded(desk, asked)
    print(f"{swaps} swaps, {len(asked)} answers, 0 errors")
