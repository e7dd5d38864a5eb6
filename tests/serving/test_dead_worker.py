"""A worker process that dies under load: the supervisor starts another, and nothing is lost or doubled."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cde_assets.stack import SERVICE, scoring_server
from cde_serving.settings import Settings
from tests.serving.helpers import SCORE, Server, bearer, releases_in, start_server, wait_for
from tests.support import NAME, TinyLoans

CLIENTS = 8


@pytest.fixture
def server(tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path: Path) -> Iterator[Server]:
    releases_in(tmp_path / "home" / NAME).promote(bundles[0])
    server = start_server(tiny, tmp_path)
    yield server
    server.kill()


def worker_of(server: Server) -> psutil.Process:
    """The process that answers: it listens on nothing itself, but it runs BentoML's worker module."""
    (worker,) = [
        child
        for child in psutil.Process(server.process.pid).children(recursive=True)
        if any("worker" in word for word in child.cmdline())
    ]
    return worker


@dataclass
class Clients:
    """Clients that send each application under a key of its own until it is answered, however often that takes."""

    server: Server
    example: dict[str, Any]
    done: threading.Event = field(default_factory=threading.Event)
    answered: dict[str, bytes] = field(default_factory=dict)
    broken: int = 0
    statuses: set[int] = field(default_factory=set)

    def run(self, name: str) -> None:
        number = 0
        while not self.done.is_set():
            number += 1
            self._ask(f"{name}-{number}")

    def _ask(self, key: str) -> None:
        while key not in self.answered:
            try:
                with httpx.Client(base_url=self.server.client.base_url, timeout=30, verify=False) as client:
                    body = {**self.example, "customer_id": f"c-{key}"}
                    headers = {"idempotency-key": key, **bearer(self.server.key)}
                    answer = client.post(SCORE, json=body, headers=headers)
            except httpx.TransportError:
                self.broken += 1
                continue
            self.statuses.add(answer.status_code)
            if answer.status_code == 200:
                self.answered[key] = answer.content


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_dead_worker_is_replaced_and_nothing_is_lost_or_doubled(server: Server, tiny: TinyLoans) -> None:
    """kill -9 three times under load: every key is answered once, as it is recorded."""
    clients = Clients(server, dict(tiny.portfolio.example))
    threads = [threading.Thread(target=clients.run, args=(str(number),), daemon=True) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    outages = []
    for _ in range(3):
        before = len(clients.answered)
        wait_for(lambda: len(clients.answered) > before + 200, 30)  # noqa: B023
        worker = worker_of(server)
        before = len(clients.answered)
        worker.kill()
        outages.append(wait_for(lambda: len(clients.answered) > before + CLIENTS, 60))  # noqa: B023
        assert worker.pid != worker_of(server).pid
    clients.done.set()
    for thread in threads:
        thread.join()

    recorded = server.recorded()
    answered = {json.loads(answer)["decision_id"]: answer for answer in clients.answered.values()}
    assert {200} == clients.statuses
    assert recorded == answered
    assert len(answered) == len(clients.answered)
    print(f"{len(answered)} decisions, {clients.broken} requests broken off, outages {outages} s")


def test_a_worker_is_replaced_in_a_container_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """BentoML's images say that they are one, and BentoML then leaves a dead worker dead."""
    monkeypatch.setenv("BENTOML_CONTAINERIZED", "true")

    server = scoring_server(Settings(home=tmp_path, _env_file=None), SERVICE, 8000)

    assert "BENTOML_CONTAINERIZED" not in {**os.environ, **server.environment}
