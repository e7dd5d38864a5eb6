"""Schemathesis reads the OpenAPI document of a real server and asks what it can think of, with and without a key."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.helpers import ROOT, Server, releases_in, start_server
from tests.support import NAME, TinyLoans


@pytest.fixture(scope="module")
def promoted(tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model promoted."""
    folder = tmp_path_factory.mktemp("conformance")
    releases_in(folder / "home" / NAME).promote(bundles[0])
    server = start_server(tiny, folder)
    yield server
    server.kill()


def conformance(server: Server, folder: Path, examples: int, seed: int) -> dict[str, Any]:
    """Run Schemathesis with all its checks; return its report, with what it printed under `printed`."""
    report = folder / "report.json"
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.client.base_url}/openapi.json",
        "--header", f"Authorization: Bearer {server.key}", "--checks", "all", "--phases",
        "examples,coverage,fuzzing,stateful", "--max-examples", str(examples), "--seed", str(seed),
        "--continue-on-failure", "--generation-allow-x00", "true", "--generation-database", "none", "--no-color",
        "--report", "json", "--report-json-path", str(report),
    ]  # fmt: skip
    hooks = {"SCHEMATHESIS_HOOKS": "tests.serving.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env={**os.environ, **hooks}, capture_output=True, text=True)
    assert report.exists(), done.stdout + done.stderr
    return {**json.loads(report.read_text(encoding="utf-8")), "printed": done.stdout[-8000:]}


def assert_conforms(report: dict[str, Any], cases: int) -> None:
    """Every operation was asked, in every phase, and no answer was other than documented."""
    print(f"{report['test_cases']['generated']} cases, {report['test_cases']['with_failures']} failures")
    assert [] == report["failures"] + report["errors"], report["printed"]
    assert report["operations"]["tested"] == report["operations"]["total"]
    assert {"success"} == {phase["status"] for phase in report["phases"].values()}
    assert report["test_cases"]["generated"] >= cases


def test_every_answer_is_as_documented(promoted: Server, tmp_path: Path) -> None:
    """No server error, no undocumented status, type or body, no way in without a key."""
    assert_conforms(conformance(promoted, tmp_path, examples=15, seed=1), cases=250)

    page = promoted.client.get("/metrics").text
    assert 'route="/api/v1/credit/score",status="200"' in page
    assert 'status="5' not in page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_answer_is_as_documented_over_many_cases(promoted: Server, tmp_path: Path) -> None:
    """The same with other seeds, for longer."""
    for seed in (2, 3):
        assert_conforms(conformance(promoted, tmp_path, examples=1000, seed=seed), cases=2000)
