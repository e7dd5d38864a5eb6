"""`make up`: Dagster, MLflow and the scoring service run together, and stop together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from cde_assets.processes import free_port
from tests.lender import ROOT, environment

HOST = "127.0.0.1"


def _wait(url: str, process: subprocess.Popen[bytes], seconds: float = 150) -> httpx.Response:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the platform ended"
        try:
            return httpx.get(url, timeout=10)
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(f"nothing answers at {url}")


def test_on_a_clean_start_everything_is_up_and_ready_names_the_command_that_promotes(tmp_path: Path) -> None:
    ports = {name: free_port(HOST) for name in ("CDE_PORT", "CDE_MLFLOW_PORT", "CDE_DAGSTER_PORT", "CDE_PAGES_PORT")}
    command = [str(Path(sys.executable).parent / "cde"), "up", "german_credit"]
    env = environment(tmp_path, **{name: str(port) for name, port in ports.items()})
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        ready = _wait(f"http://{HOST}:{ports['CDE_PORT']}/ready", process)
        assert ready.status_code == 503
        assert ready.json()["run"] == "make demo PORTFOLIO=german_credit"
        assert _wait(f"http://{HOST}:{ports['CDE_MLFLOW_PORT']}/", process).status_code == 200
        assert _wait(f"http://{HOST}:{ports['CDE_PAGES_PORT']}/", process).status_code == 200
        graphql = f"http://{HOST}:{ports['CDE_DAGSTER_PORT']}/graphql"
        _wait(f"http://{HOST}:{ports['CDE_DAGSTER_PORT']}/server_info", process)
        assert _locations(graphql) == {"personal_loan": "", "german_credit": "", "lending_club": ""}
        _assert_the_sensors_run_and_can_be_switched_off(graphql)
        started = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
        _, alive = psutil.wait_procs(started, timeout=20)
        assert alive == []
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()


def _locations(graphql: str) -> dict[str, str]:
    """Every code location with the message of its load error, if any."""
    query = """{ workspaceOrError { ... on Workspace { locationEntries {
        name locationOrLoadError { ... on PythonError { message } } } } } }"""
    workspace = httpx.post(graphql, json={"query": query}, timeout=60).json()["data"]["workspaceOrError"]
    entries = workspace["locationEntries"]
    return {entry["name"]: (entry["locationOrLoadError"] or {}).get("message", "") for entry in entries}


def _assert_the_sensors_run_and_can_be_switched_off(graphql: str) -> None:
    """Those of the chosen portfolio have looked without a click, no other's are on, and the UI's switch holds."""
    sensors = _sensors(graphql, "german_credit")
    assert {"drift_retrains", "failures_alert", "new_loans_refresh"} <= sensors.keys()
    assert {sensor["sensorState"]["status"] for sensor in sensors.values()} == {"RUNNING"}
    others = _sensors(graphql, "lending_club")
    assert {sensor["sensorState"]["status"] for sensor in others.values()} == {"STOPPED"}
    end = time.monotonic() + 120
    while any(not sensor["sensorState"]["ticks"] for sensor in _sensors(graphql, "german_credit").values()):
        assert time.monotonic() < end, "a sensor never looked"
        time.sleep(1)
    states = [sensor["sensorState"] for sensor in _sensors(graphql, "german_credit").values()]
    assert {tick["status"] for state in states for tick in state["ticks"]} <= {"SKIPPED", "STARTED", "SUCCESS"}
    switch = "mutation Off($id: String!) { stopSensor(id: $id) { __typename } }"
    drift = sensors["drift_retrains"]["sensorState"]["id"]
    httpx.post(graphql, json={"query": switch, "variables": {"id": drift}}, timeout=60).raise_for_status()
    assert _sensors(graphql, "german_credit")["drift_retrains"]["sensorState"]["status"] == "STOPPED"


def _sensors(graphql: str, location: str) -> dict[str, Any]:
    """The sensors of a code location by name, with their state and newest ticks."""
    query = """query Sensors($of: RepositorySelector!) { sensorsOrError(repositorySelector: $of) { ... on Sensors {
        results { name sensorState { id status ticks(limit: 3) { status } } } } } }"""
    of = {"repositoryLocationName": location, "repositoryName": "__repository__"}
    answer = httpx.post(graphql, json={"query": query, "variables": {"of": of}}, timeout=60).json()
    return {sensor["name"]: sensor for sensor in answer["data"]["sensorsOrError"]["results"]}
