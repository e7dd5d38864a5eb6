"""Server processes: started in a group of their own, waited for, and ended with everything they started."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

GRACE_SECONDS = 30.0  # the service gives clients twelve seconds, and its log nine


class ServerError(RuntimeError):
    """A server that did not start or did not stay."""


@dataclass
class Server:
    """A program that answers at `url` once it is up; what it prints goes to `log`."""

    name: str
    command: list[str]
    url: str
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the program in a process group of its own."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        return self

    def wait(self, seconds: float) -> None:
        """
        Wait until the program answers, whatever the status.

        Raises:
            ServerError: it ended, or does not answer in time; the message ends with what it printed last.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            try:
                httpx.get(self.url, timeout=5.0)
            except httpx.TransportError:
                time.sleep(0.2)
            else:
                return
        raise ServerError(f"{self.name} does not answer at {self.url} after {seconds:.0f} s\n{self._tail()}")

    def check(self) -> None:
        """
        Look whether the program still runs.

        Raises:
            ServerError: it ended.
        """
        if self.process is None or self.process.poll() is not None:
            raise ServerError(f"{self.name} ended\n{self._tail()}")

    def stop(self) -> None:
        """End the program and what it started: first asked, then killed."""
        if self.process is None:
            return
        for sign, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(patience)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _tail(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(["last lines of " + str(self.log) + ":", *text.splitlines()[-15:]])


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex((host, port)) == 0
