"""Requests per second over HTTP: the full, explained, recorded decision against bare scores of the same model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.lender import Lender
from benchmarks.rounds import Figure, Results
from cde_assets.processes import Server, free_port

CONNECTIONS = (1, 8, 32)
PUBLISHED_AT = 8  # connections; the figures at other numbers bear a suffix
BODIES = 5_000
FIGURES = {
    "ours under plain uvicorn": "http_decision_vs_plain_uvicorn",
    "FastAPI, score only": "http_decision_vs_fastapi_score",
    "FastAPI, pred_contribs": "http_decision_vs_fastapi_shap",
    "BentoML api, score only": "http_decision_vs_bentoml_api",
    "mlflow models serve, score only": "http_decision_vs_mlflow",
}
_SCRIPT = """
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local number = 0
local headers = {["Content-Type"] = "application/json", ["Authorization"] = os.getenv("AUTHORIZATION")}
request = function()
  number = number % #bodies + 1
  return wrk.format("POST", nil, headers, bodies[number])
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\n{"requests": %d, "us": %d, "p50_us": %d, "p99_us": %d, "errors": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True)
class Contender:
    """A server program, where it takes requests, and which bodies it understands."""

    command: list[str]
    path: str
    bodies: Path
    environment: Mapping[str, str]
    key: str = ""  # an API key, if it asks for one


@dataclass(frozen=True)
class Cell:
    """One contender under load for a while."""

    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


def contenders(lender: Lender) -> dict[str, Contender]:
    """Ours first, then its peers, all with one worker and one thread for XGBoost."""
    applications, features = lender.write_bodies(BODIES)
    model = lender.home / "mlflow_model"
    names = [feature.name for feature in lender.portfolio.features]
    peers.save_for_mlflow(lender.booster.booster, pd.DataFrame(lender.matrix[:BODIES], columns=names), model)
    python = [sys.executable, "-m"]
    environment = {
        peers.MODEL: str(lender.booster_file),
        "CDE_HOME": str(lender.home),
        "CDE_PORTFOLIO": lender.portfolio.name,
        "BENTOML_HOME": str(lender.home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # mlflow starts the uvicorn it finds there
    }
    score = "/api/v1/credit/score"
    key = lender.new_key()

    def uvicorn(factory: str) -> list[str]:
        return [*python, "uvicorn", f"benchmarks.peers:{factory}", "--factory", "--no-access-log", "--port", "PORT"]

    def bento(service: str) -> list[str]:
        return [*python, "bentoml", "serve", service, "--host", "127.0.0.1", "--port", "PORT"]

    mlflow = [*python, "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local", "-w", "1", "-p", "PORT"]
    return {
        "ours: explained, recorded decision": Contender(
            bento("cde_serving.service:CreditDecisionService"), score, applications, environment, key
        ),
        "ours under plain uvicorn": Contender(uvicorn("plain_uvicorn"), score, applications, environment, key),
        "FastAPI, score only": Contender(uvicorn("score_only"), "/score", applications, environment),
        "FastAPI, pred_contribs": Contender(uvicorn("with_contributions"), "/score", applications, environment),
        "BentoML api, score only": Contender(bento("benchmarks.peers:BentoApi"), "/score", features, environment),
        "mlflow models serve, score only": Contender(mlflow, "/invocations", features, environment),
    }


def measure(lender: Lender, rounds: int, seconds: int, console: Console) -> dict[str, Figure]:
    """Run all contenders in turn, each alone on the machine, and print requests per second and latencies."""
    load = shutil.which("wrk")
    if load is None:
        raise SystemExit("wrk makes the load, and is not installed: apt-get install wrk")
    cells: dict[int, dict[str, list[Cell]]] = {connections: {} for connections in CONNECTIONS}
    script = lender.home / "load.lua"
    script.write_text(_SCRIPT, encoding="utf-8")
    named = contenders(lender)
    for number in range(rounds):
        for name, contender in named.items():
            console.print(f"round {number + 1} of {rounds}: {name}", style="dim")
            with _Running(name, contender, lender.home / "logs") as url:
                _load(load, script, contender, url, 8, 3)  # warm up
                for connections in CONNECTIONS:
                    cell = _load(load, script, contender, url, connections, seconds)
                    if cell.errors:
                        raise SystemExit(f"{name} answered {cell.errors} requests with an error, so its speed is none")
                    cells[connections].setdefault(name, []).append(cell)
    figures: dict[str, Figure] = {}
    for connections, measured in cells.items():
        rates = {name: [cell.per_second for cell in found] for name, found in measured.items()}
        results = Results("requests a second", True, rates)
        results.show(console, f"HTTP, {connections} connections")
        _show_latencies(console, connections, measured)
        suffix = "" if connections == PUBLISHED_AT else f"_c{connections}"
        figures |= results.figures({name: f"{figure}{suffix}" for name, figure in FIGURES.items()})
    return figures


def _show_latencies(console: Console, connections: int, measured: Mapping[str, list[Cell]]) -> None:
    table = Table(title=f"Latency, {connections} connections", title_justify="left")
    for heading in ("", "p50, ms", "p99, ms (each round)"):
        table.add_column(heading)
    for name, found in measured.items():
        p50, p99 = ([getattr(cell, field) for cell in found] for field in ("p50_ms", "p99_ms"))
        middle = sorted(p50)[len(p50) // 2]
        table.add_row(name, f"{middle:.2f}", ", ".join(f"{value:.1f}" for value in p99))
    console.print(table)


class _Running:
    """A contender's server while it is needed."""

    def __init__(self, name: str, contender: Contender, logs: Path) -> None:
        port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{port}{contender.path}"
        command = [part.replace("PORT", str(port)) if part == "PORT" else part for part in contender.command]
        log = logs / f"{name.replace(' ', '-').replace(':', '').replace(',', '')}.log"
        self.server = Server(name, command, self.url, log, contender.environment)

    def __enter__(self) -> str:
        try:
            self.server.start().wait(60)
        except BaseException:
            self.server.stop()
            raise
        return self.url

    def __exit__(self, *_: object) -> None:
        self.server.stop()


def _load(load: str, script: Path, contender: Contender, url: str, connections: int, seconds: int) -> Cell:
    command = [load, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url]
    environment = {"BODIES": str(contender.bodies), "AUTHORIZATION": f"Bearer {contender.key}"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    said = json.loads(done.stdout.splitlines()[-1])
    return Cell(1e6 * said["requests"] / said["us"], said["p50_us"] / 1e3, said["p99_us"] / 1e3, said["errors"])
