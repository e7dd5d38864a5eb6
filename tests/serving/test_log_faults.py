"""Real processes that die, and disks that fill up: nothing answered is lost, nothing is decided twice."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cde_serving.records.database import open_reader
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey
from cde_serving.records.verify import Verification, verify_log
from cde_serving.signing import TrustedKeys
from tests.serving.fault_server import POINTS
from tests.serving.helpers import ROOT, SCORE, bearer, free_port, key_in, releases_in, wait_for
from tests.support import NAME, REFERENCE, TinyLoans

CLIENTS = 8
SECONDS_OF_LOAD = (0.05, 0.6)


@dataclass
class History:
    """What clients saw: the answer of every key, and the keys whose fate they do not know."""

    answered: dict[str, bytes] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)

    def answer(self, key: str, content: bytes) -> None:
        """Note an answer; a second, different one for a key is a contradiction."""
        if self.answered.setdefault(key, content) != content:
            self.contradictions.append(key)
        self.unknown.discard(key)


@dataclass
class Desk:
    """Services in processes of their own, one after the other over the same state, and the clients' history."""

    home: Path
    url: str
    port: int
    zygote: subprocess.Popen[str]
    example: dict[str, Any]
    key: str
    history: History = field(default_factory=History)
    service: int = 0
    sent: int = 0
    probe: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.probe = self._new_client()

    def start(self, point: str = "nowhere", nth: int = 0, file_size: int = 0) -> None:
        """Start a service and wait until it is ready, or dead already."""
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.write(f"{point} {nth} {file_size}\n")
        self.zygote.stdin.flush()
        self.service = int(self.zygote.stdout.readline())
        wait_for(lambda: self.status() is not None or not alive(self.service), 60)

    def ended(self) -> int:
        """Wait for the service to end, and return how: an exit code, or minus a signal's number."""
        assert self.zygote.stdout is not None
        return int(self.zygote.stdout.readline())

    def kill(self) -> None:
        """End the service at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.service, signal.SIGKILL)
        assert -signal.SIGKILL == self.ended()

    def status(self) -> int | None:
        """What `/ready` says, if anybody is there."""
        try:
            return self.probe.get("/ready").status_code
        except httpx.TransportError:
            return None

    def load(self, *, seconds: float | None = None) -> list[threading.Thread]:
        """Start clients that send applications under keys of their own until the service is gone, or for a while."""
        until = time.monotonic() + (seconds or 3600)
        clients = [threading.Thread(target=self._client, args=(until,), daemon=True) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        return clients

    def send_again(self) -> None:
        """Send every request whose fate is not known again, as clients do after a time-out."""
        with self._new_client() as client:
            for key in sorted(self.history.unknown):
                self._send(client, key)
        assert not self.history.unknown

    def _new_client(self) -> httpx.Client:
        # Without TLS there is nothing to verify, and the certificates take longer to read than a service to start.
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=20, verify=False, headers=bearer(self.key)
        )

    def _client(self, until: float) -> None:
        with self._new_client() as client:
            while time.monotonic() < until:
                self.sent += 1
                try:
                    self._send(client, f"{threading.get_ident()}-{self.sent}-{time.monotonic_ns()}")
                except httpx.TransportError:
                    return

    def _send(self, client: httpx.Client, key: str) -> None:
        self.history.unknown.add(key)
        body = {**self.example, "customer_id": f"c-{key[-3:]}"}
        answer = client.post(SCORE, json=body, headers={"idempotency-key": key})
        if answer.status_code == 200:
            self.history.answer(key, answer.content)
        else:
            self.history.refused[str(answer.status_code)] = self.history.refused.get(str(answer.status_code), 0) + 1

    def recorded(self) -> list[bytes]:
        """All recorded answers."""
        master = MasterKey.open(self.home / "keys" / "master.key", create=False)
        return [record.payload.answer for _, record in RecordStore(open_reader(self.url), master).all() if record]

    def verify(self) -> Verification:
        trusted = TrustedKeys.read(self.home / "keys" / "log.pub")
        return verify_log(open_reader(self.url), self.home / NAME / "checkpoints.jsonl", trusted)

    def assert_nothing_lost_nothing_doubled(self) -> None:
        """Every answer is recorded once as it was answered, nothing else is, and the chains are whole."""
        recorded = self.recorded()
        lost = set(self.history.answered.values()) - set(recorded)
        doubled = len(recorded) - len(set(recorded))
        unasked = set(recorded) - set(self.history.answered.values())
        contradictions = len(self.history.contradictions)
        assert (0, 0, 0, 0) == (len(lost), doubled, len(unasked), contradictions)
        assert () == self.verify().problems
        print(f"{len(recorded)} decisions: 0 lost, 0 doubled; refused {self.history.refused}")


def alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@contextlib.contextmanager
def running(
    tiny: TinyLoans, bundle: Path, folder: Path, url: str | None = None, *wrapper: str, log_level: str = "error"
) -> Iterator[Desk]:
    """A desk over an empty home with one bundle promoted."""
    home = folder / "home"
    releases_in(home / NAME).promote(bundle)
    url = url or f"sqlite:///{home / NAME / 'decisions.sqlite'}"
    key = key_in(home, url)
    port = free_port()
    environment = {
        **os.environ,
        "CDE_HOME": str(home),
        "CDE_PORTFOLIO": REFERENCE,
        "CDE_DECISION_LOG_URL": url,
        "CDE_LOG_LEVEL": log_level,
        "PYTHONPATH": f"{ROOT}:{tiny.folder}",
    }
    with (folder / "service.log").open("wb") as output:
        zygote = subprocess.Popen(
            [*wrapper, sys.executable, str(Path(__file__).with_name("fault_server.py")), str(port)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    desk = Desk(home, url, port, zygote, dict(tiny.portfolio.example), key)
    try:
        yield desk
    finally:
        if desk.service:
            with contextlib.suppress(ProcessLookupError):
                os.kill(desk.service, signal.SIGKILL)
        zygote.kill()
        zygote.wait()


@pytest.fixture
def desk(tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path: Path, log_url: str) -> Iterator[Desk]:
    with running(tiny, bundles[0], tmp_path, log_url) as desk:
        yield desk


def survive_a_kill(desk: Desk, point: str, randomness: random.Random) -> None:
    """Let a service die under load at a point, or at any moment, and settle what the clients do not know."""
    desk.start(point, randomness.randint(1, 30))
    clients = desk.load()
    if point == "nowhere" or "checkpoint" in point:  # a checkpoint a second is too rare to wait for the thirtieth
        time.sleep(randomness.uniform(*SECONDS_OF_LOAD))
        desk.kill()
    else:
        assert -signal.SIGKILL == desk.ended()
    for client in clients:
        client.join(timeout=30)
    desk.start()
    desk.send_again()
    desk.kill()


def test_a_service_killed_at_any_point_loses_and_doubles_nothing(
    tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    """kill -9 under load at every named point; clients whose request broke off send it again."""
    with running(tiny, bundles[0], tmp_path) as desk:
        for number, point in enumerate(POINTS):
            print(point)
            survive_a_kill(desk, point, random.Random(number))

        desk.assert_nothing_lost_nothing_doubled()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("log_url", ["sqlite", "postgresql"], indirect=True)
def test_two_hundred_kills_lose_and_double_nothing(desk: Desk) -> None:
    """The same over one log, a hundred and twenty times on either database, half of them at a random moment."""
    randomness = random.Random(4)
    named = [point for point in POINTS if point != "nowhere"]
    for number in range(120):
        survive_a_kill(desk, "nowhere" if number % 2 else randomness.choice(named), randomness)

    desk.assert_nothing_lost_nothing_doubled()


def test_a_terminated_service_finishes_what_it_began(desk: Desk) -> None:
    """SIGTERM under load: what was answered is recorded, the chain's end is signed, and the process exits by itself."""
    desk.start()
    clients = desk.load()
    time.sleep(1)

    os.kill(desk.service, signal.SIGTERM)

    assert 0 == desk.ended()
    for client in clients:
        client.join(timeout=30)
    assert 0 == desk.verify().unsigned
    desk.start()
    desk.send_again()
    desk.assert_nothing_lost_nothing_doubled()


def test_a_full_disk_stops_decisions_and_loses_none(
    tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    """While files cannot grow there is no answer but 503; when they can again, decisions go on without a restart."""
    with running(tiny, bundles[0], tmp_path) as desk:
        desk.start(file_size=300_000)
        clients = desk.load(seconds=6)
        wait_for(lambda: desk.history.refused.get("503", 0) > 20 and desk.status() == 503, 20)

        resource.prlimit(desk.service, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        recovered = wait_for(lambda: desk.status() == 200, 5)
        for client in clients:
            client.join(timeout=30)
        answered = len(desk.history.answered)
        desk.send_again()
        assert {"503"} == set(desk.history.refused)
        assert len(desk.history.answered) > answered
        desk.assert_nothing_lost_nothing_doubled()
        print(f"recovered in {recovered:.1f} s")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to let fsync fail")
def test_a_failing_fsync_stops_decisions_and_loses_none(
    tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    """What the disk did not confirm is not answered."""
    every_third = "inject=fsync,fdatasync:error=EIO:when=20+3"
    wrapper = (
        "strace",
        "-f",
        "-qq",
        "-o",
        str(tmp_path / "strace.log"),
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        every_third,
    )
    with running(tiny, bundles[0], tmp_path, None, *wrapper) as desk:
        desk.start()
        for client in desk.load(seconds=3):
            client.join(timeout=60)
        desk.kill()

        recorded = desk.recorded()
        assert {"503"} == set(desk.history.refused)
        assert len(desk.history.answered) > 10
        assert set(desk.history.answered.values()) <= set(recorded)
        assert len(recorded) == len(set(recorded))
        assert () == desk.verify().problems


@pytest.mark.parametrize("log_url", ["postgresql"], indirect=True)
def test_a_database_that_comes_back_is_written_to_again(desk: Desk, request: pytest.FixtureRequest) -> None:
    """PostgreSQL killed under load: 503 while it is away, nothing lost, and no restart of the service."""
    server = request.getfixturevalue("postgres")
    desk.start()
    clients = desk.load(seconds=4)
    time.sleep(1)

    server.kill()
    wait_for(lambda: desk.history.refused.get("503", 0) > 0, 10)
    server.start()

    wait_for(lambda: desk.status() == 200, 10)
    for client in clients:
        client.join(timeout=60)
    desk.send_again()
    assert {"503"} == set(desk.history.refused)
    desk.assert_nothing_lost_nothing_doubled()
