"""Tests for `cde_serving.service`: a real BentoML server on a loopback port."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import rfc8785

from cde_serving.service import open_scorer
from cde_serving.settings import Settings
from tests.serving.helpers import ROOT, SCORE, Releases, Server, releases_in, start_server, wait_for
from tests.support import NAME, REFERENCE, TinyLoans

Bundles = tuple[Path, Path]


@pytest.fixture(scope="module")
def example(tiny: TinyLoans) -> dict[str, Any]:
    """The portfolio's example application."""
    return dict(tiny.portfolio.example)


def ready(server: Server) -> tuple[int, dict[str, Any]]:
    """What `/ready` says."""
    answer = server.client.get("/ready")
    return answer.status_code, answer.json()


class TestOneServer:
    """The life of one server, in order: nothing promoted, a promotion, a swap, a bad bundle."""

    def test_before_the_first_promotion_it_is_up_but_not_ready(self, server: Server, example: dict[str, Any]) -> None:
        """The service tells what to run instead of failing."""
        body = {"status": "nothing promoted yet", "run": f"make demo PORTFOLIO={REFERENCE}"}

        assert 200 == server.client.get("/health").status_code
        assert (503, body) == ready(server)
        assert 503 == server.client.post(SCORE, json=example).status_code

    def test_of_bentomls_own_routes_only_its_probes_answer(self, server: Server) -> None:
        """Every other request is ours, and so is the page of metrics, with all that one process counts."""
        assert [200, 404, 404] == [
            server.client.get(path).status_code for path in ("/livez", "/schema.json", "/docs.json")
        ]
        assert {"detail": "Not Found"} == server.client.get("/schema.json").json()

        page = server.client.get("/metrics").text

        assert 'cde_http_requests_total{method="GET",route="other",status="404"}' in page
        assert "cde_http_request_seconds_bucket" in page
        assert "bentoml" not in page

    def test_the_first_promotion_is_served_within_two_seconds(
        self, server: Server, bundles: Bundles, example: dict[str, Any]
    ) -> None:
        """No restart is needed."""
        digest = server.releases.promote(bundles[0])

        wait_for(lambda: ready(server)[0] == 200, 2)

        assert digest[:12] == server.client.post(SCORE, json=example).json()["model_version"]

    def test_an_answered_decision_is_in_the_database_already(self, server: Server, example: dict[str, Any]) -> None:
        """Read from outside the server, with eight clients at once."""

        def ask_and_look(number: int) -> bool:
            answer = server.client.post(SCORE, json={**example, "customer_id": f"c-{number}"})
            return server.recorded()[answer.json()["decision_id"]] == answer.content

        with ThreadPoolExecutor(8) as clients:
            assert all(clients.map(ask_and_look, range(64)))

    def test_an_invalid_application_leaves_no_record(self, server: Server, example: dict[str, Any]) -> None:
        """422 is no decision."""
        before = len(server.recorded())

        answer = server.client.post(SCORE, json={**example, "annual_income": "plenty"})

        assert (422, "annual_income") == (answer.status_code, answer.json()["detail"][0]["field"])
        assert before == len(server.recorded())

    def test_a_second_promotion_swaps_the_model_under_load(
        self, server: Server, bundles: Bundles, example: dict[str, Any]
    ) -> None:
        """Within two seconds answers come from the new bundle, and no request fails on the way."""
        answers: list[httpx.Response] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                answers.append(server.client.post(SCORE, json=example))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        digest = server.releases.promote(bundles[1])
        try:
            wait_for(lambda: answers[-1:] != [] and answers[-1].json()["model_version"] == digest[:12], 2)
        finally:
            done.set()
            for client in clients:
                client.join()

        assert {200} == {answer.status_code for answer in answers}
        scores = {(answer.json()["model_version"], answer.json()["score"]) for answer in answers}
        assert {version for version, _ in scores} <= {bundle.name[:12] for bundle in bundles}
        assert len(scores) == len({version for version, _ in scores})

    def test_a_rollback_takes_effect_within_two_seconds(
        self, server: Server, bundles: Bundles, example: dict[str, Any]
    ) -> None:
        """One ledger entry, no restart; and forth again."""
        entry = server.releases.store.roll_back(None, key=server.releases.key, by="test")

        wait_for(lambda: server.client.post(SCORE, json=example).json()["model_version"] == entry.bundle[:12], 2)

        assert bundles[0].name == entry.bundle
        digest = server.releases.promote(bundles[1])
        wait_for(lambda: server.client.post(SCORE, json=example).json()["model_version"] == digest[:12], 2)

    def test_a_line_appended_by_hand_is_not_served(
        self, server: Server, bundles: Bundles, example: dict[str, Any]
    ) -> None:
        """The ledger is a file that somebody may write; only the platform's signature counts."""
        ledger = server.releases.store.ledger
        whole = ledger.path.read_bytes()
        entry = json.loads(whole.splitlines()[-1])
        forged = {**entry, "sequence": entry["sequence"] + 1, "bundle": bundles[0].name, "previous": entry["bundle"]}
        ledger.path.write_bytes(whole + rfc8785.dumps(forged) + b"\n")

        wait_for(lambda: ready(server)[1]["problem"] is not None, 2)

        assert "signature that does not match" in ready(server)[1]["problem"]
        assert bundles[1].name[:12] == server.client.post(SCORE, json=example).json()["model_version"]
        ledger.path.write_bytes(whole)
        wait_for(lambda: ready(server)[1]["problem"] is None, 5)

    def test_a_tampered_bundle_is_refused_and_the_old_one_answers(
        self, server: Server, bundles: Bundles, example: dict[str, Any]
    ) -> None:
        """A rollback to a bundle that was changed on disk does not happen; `/ready` says why."""
        digest = bundles[0].name
        values = server.releases.store.bundles / digest / "model" / "trees" / "leaf_value.npy"
        content = values.read_bytes()
        values.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        server.releases.promote(bundles[0])

        wait_for(lambda: ready(server)[1]["problem"] is not None, 2)

        status, body = ready(server)
        assert (200, bundles[1].name) == (status, body["bundle"])
        assert "leaf_value.npy" in body["problem"]
        assert bundles[1].name[:12] == server.client.post(SCORE, json=example).json()["model_version"]

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("/metrics", "cde_decisions_total"),
            ("/docs", "/docs/start.js"),
            ("/openapi.json", "TinyApplication"),
            ("/docs/assets/swagger-ui-bundle.js", "Swagger"),
            ("/health", '{"status":"ok"}'),
        ],
    )
    def test_the_pages_are_ours(self, server: Server, path: str, text: str) -> None:
        """BentoML's own pages of the same names are not in the way."""
        answer = server.client.get(path)

        assert 200 == answer.status_code
        assert text in answer.text

    def test_its_log_holds_no_personal_values(self, server: Server) -> None:
        """Customers are in the database, not in the log files."""
        lines = server.output.read_text(encoding="utf-8")

        assert "bundle served" in lines
        assert "customer" not in lines


@pytest.fixture
def own_server(tiny: TinyLoans, bundles: Bundles, tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, serving the first bundle, to be ended by the test."""
    releases_in(tmp_path / "home" / NAME).promote(bundles[0])
    server = start_server(tiny, tmp_path)
    yield server
    server.kill()


def ask_until_it_ends(server: Server, example: dict[str, Any], seconds: float) -> tuple[list[threading.Thread], dict]:
    """Start eight clients that ask until the server is gone; return them and the answers they got."""
    answered: dict[str, bytes] = {}

    def ask() -> None:
        with httpx.Client(base_url=server.client.base_url, headers=server.client.headers, timeout=10) as client:
            while True:
                try:
                    answer = client.post(SCORE, json=example)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    answered[json.loads(answer.content)["decision_id"]] = answer.content

    clients = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
    for client in clients:
        client.start()
    time.sleep(seconds)
    return clients, answered


def test_a_killed_server_loses_no_answered_decision(own_server: Server, example: dict[str, Any]) -> None:
    """After kill -9 under load, every decision that a client was given is in the database."""
    clients, answered = ask_until_it_ends(own_server, example, seconds=2)

    own_server.kill()
    for client in clients:
        client.join(timeout=30)

    kept = own_server.recorded()
    assert len(answered) > 20
    assert answered.items() <= kept.items()


def test_a_stopped_server_finishes_what_it_began(own_server: Server, example: dict[str, Any]) -> None:
    """After SIGTERM under load it exits by itself, and the database holds what was answered or under way."""
    clients, answered = ask_until_it_ends(own_server, example, seconds=1)

    code = own_server.stop()
    for client in clients:
        client.join(timeout=30)

    kept = own_server.recorded()
    assert 0 == code
    assert answered.items() <= kept.items()
    assert len(kept) - len(answered) <= len(clients)


class TestOpenScorer:
    """Tests for `open_scorer`."""

    def test_a_bento_serves_what_was_built_in(self, tiny: TinyLoans, bundles: Bundles, tmp_path: Path) -> None:
        """With a release inside, neither state nor the portfolio's module is needed."""
        releases_in(tmp_path / "release", keys=tmp_path / "release").promote(bundles[0])
        settings = Settings(home=tmp_path / "home", portfolio="no_such_bank:PORTFOLIO", _env_file=None)

        scorer = open_scorer(settings, tmp_path / "release")
        serving, database = scorer.releases.serving, tmp_path / "home" / NAME / "decisions.sqlite"
        scorer.close()

        assert serving is not None
        assert bundles[0].name == serving.digest
        assert database.exists()

    def test_the_command_to_run_names_the_portfolio(self, tmp_path: Path) -> None:
        """`make demo` is enough for the default portfolio only."""
        commands = []
        for portfolio in ("personal_loan", "german_credit"):
            settings = Settings(home=tmp_path / "home", portfolio=portfolio, _env_file=None)
            scorer = open_scorer(settings, tmp_path / "release")
            scorer.close()
            commands.append(scorer.promote)

        assert ["make demo", "make demo PORTFOLIO=german_credit"] == commands


HEAVY = ("dagster", "evidently", "fairlearn", "mlflow", "shap", "sklearn", "xgboost")


def test_the_service_loads_no_library_of_training(releases: Releases, bundles: Bundles, tmp_path: Path) -> None:
    """Opening the service and deciding an application imports neither trainer nor orchestrator."""
    releases.promote(bundles[0])
    program = f"""
import asyncio, json, sys
from cde_serving.service import open_scorer
from cde_serving.settings import Settings
scorer = open_scorer(Settings(portfolio="{NAME}", home={str(releases.store.folder.parent)!r}))
example = json.dumps(dict(scorer.releases.serving.portfolio.example)).encode()
answer = asyncio.run(scorer.score(example))
scorer.close()
print(json.dumps([json.loads(answer)["decision"], sorted(set({HEAVY}) & set(sys.modules))]))
"""

    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )

    assert ["APPROVED", []] == json.loads(result.stdout.splitlines()[-1])
