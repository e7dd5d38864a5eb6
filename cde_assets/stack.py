"""The running platform: Dagster, MLflow and the scoring service."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from cde_assets.api_keys import access_hint
from cde_assets.processes import Server, ServerError, is_taken
from cde_resources.bentos import BentoStore
from cde_serving.settings import Settings

ROOT = Path(__file__).parents[1]
SERVICE = "cde_serving.service:CreditDecisionService"
START_SECONDS = 120.0


def prepare_home(settings: Settings) -> Path:
    """Create `$CDE_HOME/dagster` with the project's dagster.yaml and make it DAGSTER_HOME."""
    folder = settings.home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", folder / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


def program(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).parent / name)


def scoring_server(settings: Settings, what: str, port: int) -> Server:
    """The scoring service under BentoML: `what` is a bento's tag or the service in this source tree."""
    # With it, as every image built by BentoML has it, a worker that dies is not replaced: the supervisor lives on and
    # holds the port, and nobody answers.
    os.environ.pop("BENTOML_CONTAINERIZED", None)
    host = settings.host
    command = [program("bentoml"), "serve", what, "--host", host, "--port", str(port)]
    command += ["--timeout-graceful-shutdown", "20"]  # also for a connection that is made while the service ends
    return Server(
        name="scoring service",
        command=command,
        url=f"http://{host}:{port}/health",
        log=settings.home / "logs" / "scoring.log",
        environment=BentoStore(home=str(settings.home / "bentoml")).environment(),
    )


def servers(settings: Settings) -> list[Server]:
    """All servers of `make up`."""
    host, logs = settings.host, settings.home / "logs"
    shipped = ":" not in settings.portfolio
    locations = ["-w", str(ROOT / "workspace.yaml")] if shipped else ["-m", "cde_assets.definitions", "-a", "defs"]
    return [
        scoring_server(settings, SERVICE, settings.port),
        Server(
            name="MLflow",
            command=[
                *(program("mlflow"), "server", "--host", host, "--port", str(settings.mlflow_port), "--workers", "1"),
                *("--backend-store-uri", settings.tracking_uri()),
                *("--default-artifact-root", (settings.home / "mlflow").as_uri()),
            ],
            url=f"http://{host}:{settings.mlflow_port}/health",
            log=logs / "mlflow.log",
            environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        ),
        Server(
            name="pages",
            command=[
                *(sys.executable, "-m", "uvicorn", "--factory", "cde_assets.pages:app", "--log-level", "warning"),
                *("--host", host, "--port", str(settings.pages_port)),
            ],
            url=f"http://{host}:{settings.pages_port}",
            log=logs / "pages.log",
            environment={},
        ),
        Server(
            name="Dagster",
            command=[program("dagster"), "dev", *locations, "-h", host, "-p", str(settings.dagster_port)],
            url=f"http://{host}:{settings.dagster_port}/server_info",
            log=logs / "dagster.log",
            environment={},
        ),
    ]


def run_stack(settings: Settings) -> int:
    """Run everything until Ctrl-C or SIGTERM; exit status 1 if a server does not start or stay."""
    console = Console()
    prepare_home(settings)
    if taken := _taken_port(settings):
        console.print(f"Port {taken[1]} is taken. Choose another: {taken[0]}={taken[1] + 10} make up", style="bold red")
        return 1
    for sign in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs with SIGINT ignored
        signal.signal(sign, signal.default_int_handler)
    try:
        with contextlib.ExitStack() as stack:
            running = []
            for server in servers(settings):
                console.print(f"starting {server.name} ...")
                running.append(stack.enter_context(server))
            for server in running:
                server.wait(START_SECONDS)
            console.print(_addresses(settings))
            if hint := access_hint(settings):
                console.print(hint, markup=False, soft_wrap=True)
            _watch(running)
    except ServerError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
    return 0


def _watch(running: list[Server]) -> NoReturn:
    while True:
        for server in running:
            server.check()
        time.sleep(1.0)


def _taken_port(settings: Settings) -> tuple[str, int] | None:
    ports = {"CDE_PORT": settings.port, "CDE_MLFLOW_PORT": settings.mlflow_port}
    ports |= {"CDE_DAGSTER_PORT": settings.dagster_port, "CDE_PAGES_PORT": settings.pages_port}
    return next(((name, port) for name, port in ports.items() if is_taken(settings.host, port)), None)


def _addresses(settings: Settings) -> Table:
    base = f"http://{settings.host}"
    table = Table(title=f"Credit decision engine: {settings.portfolio} (Ctrl-C stops it)", title_justify="left")
    table.add_column("what")
    table.add_column("where")
    table.add_row("Dagster: assets, checks, runs", f"{base}:{settings.dagster_port}")
    table.add_row("MLflow: training runs, models", f"{base}:{settings.mlflow_port}")
    table.add_row("Pages: cards and reports", f"{base}:{settings.pages_port}")
    table.add_row("Scoring: try it out", f"{base}:{settings.port}/docs")
    table.add_row("Scoring: is a model promoted?", f"{base}:{settings.port}/ready")
    table.add_row("State and logs", str(settings.home))
    return table


def promoted_bento(settings: Settings) -> str | None:
    """The tag of the bento of the latest promotion, if one was built."""
    path = settings.home / "artefacts" / settings.portfolio_name() / "scoring_bento.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["tag"]) if path.exists() else None


def serve_promoted(settings: Settings, port: int) -> NoReturn:
    """Become the server of the promoted bento; exit with status 1 if nothing is promoted."""
    tag = promoted_bento(settings)
    if tag is None:
        Console(stderr=True).print(
            f"Nothing is promoted for {settings.portfolio} yet. Run: make demo PORTFOLIO={settings.portfolio}",
            style="red",
        )
        raise SystemExit(1)
    if hint := access_hint(settings):
        Console(stderr=True).print(hint, markup=False, soft_wrap=True)
    server = scoring_server(settings, tag, port)
    # In place of this process, so that signals reach the server itself.
    os.execvpe(server.command[0], server.command, {**os.environ, **server.environment})  # noqa: S606
