"""What the serving tests share: an app in this process, a real server, and releases to promote into."""

import asyncio
import contextlib
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from starlette.types import ASGIApp

from cde_serving.access.issuing import KeyIssuer
from cde_serving.access.keys import SCOPES
from cde_serving.decision_log import DecisionLog, Record
from cde_serving.records.checkpoints import CheckpointFile
from cde_serving.records.database import open_reader
from cde_serving.records.record import DEFAULT_TENANT, Payload, Versions
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey
from cde_serving.releases import ReleaseStore
from cde_serving.scorer import Scorer
from cde_serving.settings import Settings
from cde_serving.signing import SigningKey, open_signing_key
from tests.support import NAME, REFERENCE, TinyLoans

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
EVIDENCE = "e" * 64
SCORE = "/api/v1/credit/score"


RECORD = Record(
    record_id="0" * 32,
    applied_at="2026-03-02T11:59:59.000000Z",
    portfolio="loans",
    payload=Payload(
        customer_id="customer-1",
        request=b'{"customer_id":"customer-1"}',
        features={"income": None, "balance": math.inf, "ratio": 0.1 + 0.2, "purpose": "car"},
        score=0.91,
        answer=b'{"decision":"APPROVED"}',
    ),
    decision="APPROVED",
    decided_by="model",
    reason_codes=("LOW_INCOME",),
    variant="champion",
    versions=Versions(bundle="a" * 64, model="b" * 64, policy="c" * 64, code="d" * 64, policy_version="1"),
)


def numbered(number: int, **changes: Any) -> Record:
    """A record with an id of its own."""
    return replace(RECORD, record_id=f"{number:032x}", **changes)


@dataclass
class Releases:
    """The releases of one portfolio home, and how to promote into it."""

    store: ReleaseStore
    key: SigningKey

    def promote(self, bundle: Path, portfolio: str = NAME) -> str:
        """Copy a bundle in and make it current; return its digest."""
        target = self.store.bundles / bundle.name
        if not target.exists():
            shutil.copytree(bundle, target)
        current = self.store.ledger.current()
        entry = self.store.ledger.append(
            action="promote",
            portfolio=portfolio,
            bundle=bundle.name,
            expected_sequence=current.sequence if current else 0,
            evidence=EVIDENCE,
            key=self.key,
            by="test",
        )
        return entry.bundle


def releases_in(folder: Path, keys: Path | None = None) -> Releases:
    """The releases in a portfolio's folder, with a key beside it as in CDE_HOME."""
    keys = keys or folder.parent / "keys"
    key = open_signing_key(keys / "signing.pem", keys / "signing.pub", create=True)
    return Releases(ReleaseStore(folder, keys / "signing.pub"), key)


def open_log(folder: Path, url: str | None = None, portfolio: str = NAME, **settings: Any) -> DecisionLog:
    """A decision log with its keys and checkpoints in a folder, and its database too unless a URL is given."""
    master = MasterKey.open(folder / "master.key", create=True)
    key = open_signing_key(folder / "log.pem", folder / "log.pub", create=True)
    checkpoints = CheckpointFile(folder / "checkpoints.jsonl", key)
    url = url or f"sqlite:///{folder / 'decisions.sqlite'}"
    return DecisionLog(url, portfolio, master, checkpoints, **{"clock": lambda: NOON, **settings})


def issue_key(log: DecisionLog, *scopes: str, **options: Any) -> str:
    """A new API key, with all scopes unless some are named, for the default tenant unless another is."""
    asked = {"tenant": DEFAULT_TENANT, "scopes": scopes or SCOPES, **options}
    return asyncio.run(KeyIssuer(log, NAME, by="person:officer").create(**asked))[1]


def bearer(key: str) -> dict[str, str]:
    """The header that presents an API key."""
    return {"authorization": f"Bearer {key}"}


def recorded_answers(url: str, master_key: Path) -> dict[str, bytes]:
    """Ids and answers in a log, read by a stranger to its writer."""
    store = RecordStore(open_reader(url), MasterKey.open(master_key, create=False))
    return {record_id: record.payload.answer for record_id, record in store.all() if record}


@dataclass(frozen=True)
class AppClient:
    """Sends requests to an ASGI app in this process; an exception that escapes the app fails the test."""

    app: ASGIApp
    headers: Mapping[str, str] = field(default_factory=dict)

    def get(self, path: str) -> httpx.Response:
        """GET a path."""
        return self.request("GET", path)

    def post(self, path: str, **content: Any) -> httpx.Response:
        """POST to a path, with httpx's arguments for content."""
        return self.request("POST", path, **content)

    def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Send one request and return its answer."""
        return asyncio.run(self.send(method, path, **content))

    async def send(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Send one request from a running event loop."""
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk", headers=self.headers) as client:
            return await client.request(method, path, **content)


@dataclass
class Desk:
    """A scorer and its app in this process, and a client with a key of all scopes."""

    scorer: Scorer
    client: AppClient
    example: dict[str, Any]

    def score(self, **changes: Any) -> httpx.Response:
        """Post the example with changed fields."""
        return self.client.post(SCORE, json={**self.example, **changes})


@dataclass
class Server:
    """A `bentoml serve` process with a home of its own, and a client with a key of all scopes."""

    process: subprocess.Popen[bytes]
    port: int
    releases: Releases
    output: Path
    key: str
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, headers=bearer(self.key))

    @property
    def database(self) -> Path:
        """The decision log's file."""
        return self.releases.store.folder / "decisions.sqlite"

    def recorded(self) -> dict[str, bytes]:
        """Ids and answers in the decision log."""
        if not self.database.exists():
            return {}
        keys = self.releases.store.folder.parent / "keys"
        return recorded_answers(f"sqlite:///{self.database}", keys / "master.key")

    def wait_until_up(self) -> None:
        """Wait for the first answer."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                self.client.get("/health")
                return
            time.sleep(0.2)
        raise AssertionError(f"the server did not come up:\n{self.output.read_text()[-3000:]}")

    def kill(self) -> None:
        """End supervisor and worker at once, as a power cut would."""
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(self.process.pid)
            for process in [supervisor, *supervisor.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask the server to finish, and return its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key_in(home: Path, url: str | None = None) -> str:
    """A new API key with all scopes, in the decision log of a home."""
    log = DecisionLog.open(Settings(home=home, decision_log_url=url, _env_file=None), NAME)
    try:
        return issue_key(log)
    finally:
        log.close()


def revoke_in(home: Path, key: str) -> None:
    """Revoke a key in the decision log of a home."""
    log = DecisionLog.open(Settings(home=home, _env_file=None), NAME)
    try:
        asyncio.run(KeyIssuer(log, NAME, by="person:officer").revoke(key.split("_")[1]))
    finally:
        log.close()


def start_server(tiny: TinyLoans, folder: Path, **environment: str) -> Server:
    """Start the service with its home in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    output = folder / "server.log"
    settings = {
        "CDE_HOME": str(folder / "home"),
        "CDE_PORTFOLIO": REFERENCE,
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "CDE_WARM_EXPLANATIONS": "off",
        "PYTHONPATH": f"{ROOT}:{tiny.folder}",
        **environment,
    }
    key = key_in(folder / "home", settings.get("CDE_DECISION_LOG_URL"))
    with output.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bentoml", "serve", "cde_serving.service:CreditDecisionService"),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            cwd=ROOT,
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, port, releases_in(folder / "home" / NAME), output, key)
    try:
        server.wait_until_up()
    except BaseException:
        server.kill()
        raise
    return server


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until a condition holds and return how long it took; fail after `seconds`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"did not happen within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - started
