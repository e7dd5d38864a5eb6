"""A real Prometheus that scrapes a real service; one of each for all tests here."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.serving.fake_bureau import FakeBureau
from tests.serving.helpers import SCORE, Server, free_port, start_server, wait_for
from tests.support import write_tiny_bundle, write_tiny_loans

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
JOB = "personal_loan"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs prometheus and promtool: apt-get install prometheus",
)


@dataclass
class Prometheus:
    """A Prometheus process over a scoring service."""

    url: str
    server: Server

    def api(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP interface."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10)
        assert 200 == answer.status_code, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[float]:
        """The values that an expression has now."""
        return [float(sample["value"][1]) for sample in self.api("query", query=expression)["result"]]


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The shipped configuration, scraping a service to which applications of every kind are sent."""
    folder = tmp_path_factory.mktemp("scraped")
    tiny = write_tiny_loans(folder / "lender")
    bureau = (
        FakeBureau()
    )  # nobody asks it: the portfolio has no part that it knows, and its breaker is shown all the same
    server = start_server(tiny, folder, CDE_BUREAU_URL=bureau.url)
    try:
        server.releases.promote(write_tiny_bundle(tiny, folder, seed=1))
        wait_for(lambda: server.client.get("/ready").status_code == 200, 20)
        with running(folder, server) as process:
            _send(server, dict(tiny.portfolio.example))
            wait_for(lambda: bool(process.query(f'job_decision:cde_decisions:share15m{{job="{JOB}"}} > 0')), 20)
            yield process
    finally:
        server.kill()
        bureau.server_close()


class running:  # noqa: N801  # reads as what it is: with running(...)
    """A Prometheus with the shipped configuration, at intervals of half a second and with one target."""

    def __init__(self, folder: Path, server: Server) -> None:
        self._folder = folder / "prometheus"
        self._folder.mkdir()
        self._server = server

    def __enter__(self) -> Prometheus:
        config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(CONFIG.parent / files) for files in config["rule_files"]]
        (job,) = config["scrape_configs"]
        job["static_configs"][0]["targets"] = [f"127.0.0.1:{self._server.port}"]
        file = self._folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        port = free_port()
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={file}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ,
            )
        found = Prometheus(f"http://127.0.0.1:{port}", self._server)
        try:
            wait_for(lambda: self._scraped(found), 20)
        except BaseException:
            self._process.kill()
            raise
        return found

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)

    def _scraped(self, found: Prometheus) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()[-3000:]
        try:
            started = httpx.get(f"{found.url}/-/ready", timeout=10).status_code == 200
            return started and found.query(f'cde_ready{{job="{JOB}"}}') == [1.0]
        except httpx.TransportError:
            return False


def _send(server: Server, example: dict[str, Any]) -> None:
    """Two seconds of good, bad, odd, repeated and unauthenticated requests, so that several scrapes see them grow."""
    bodies = [
        example,
        {**example, "annual_income": 9000.0, "loan_amount": 8900.0},
        {**example, "annual_income": 30000.0, "loan_amount": 20000.0, "loan_purpose": "wedding"},
        {**example, "credit_history": {"score": 320.0, "accounts": []}},
        {**example, "annual_income": 90_000_000.0},
        {**example, "annual_income": -1.0},
    ]
    until = time.monotonic() + 2
    sent = 0
    while time.monotonic() < until:
        server.client.post(SCORE, json=bodies[sent % len(bodies)])
        sent += 1
    for _ in range(2):
        server.client.post(SCORE, json=example, headers={"idempotency-key": "once"})
    server.client.post(SCORE, json=example, headers={"authorization": "Bearer nobody"})


def rules(file: str) -> list[dict[str, Any]]:
    return [
        rule
        for group in yaml.safe_load((DEPLOY / "prometheus" / "rules" / file).read_text())["groups"]
        for rule in group["rules"]
    ]


def dashboards() -> dict[str, Any]:
    """The shipped dashboards by their file's name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in (DEPLOY / "grafana").glob("dashboards/*.json")
    }


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}
BOARDS = dashboards()
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
