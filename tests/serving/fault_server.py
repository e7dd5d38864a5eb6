"""A scoring service whose process dies where a test says; run as a program.

`fault_server.py PORT` imports and compiles everything once and then starts a service for each line of its input,
`POINT NTH FILE_SIZE`: a child that kills itself at the NTH passing of POINT, and whose files cannot grow beyond
FILE_SIZE bytes (0: no limit). It prints the child's process id, and once the child has ended, how.
"""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import alembic.command  # noqa: F401  # imported by a service as it starts; here once for all
import uvicorn

from cde_serving.app import create_app
from cde_serving.logs import configure_logging
from cde_serving.records.checkpoints import CheckpointFile
from cde_serving.records.statements import Statements
from cde_serving.records.writer import Writer
from cde_serving.service import open_scorer
from cde_serving.settings import Settings
from cde_serving.warming import warm_kernels


def die_at(point: str, nth: int) -> None:
    """Kill this process at the nth passing of a point."""
    passings = count(1)

    def pass_by() -> None:
        if next(passings) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)
        setattr(owner, name, lambda *args, **options: (pass_by(), original(*args, **options))[1])

    def after(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def passed(*args: Any, **options: Any) -> Any:
            result = original(*args, **options)
            pass_by()
            return result

        setattr(owner, name, passed)

    POINTS[point](before, after)


POINTS: dict[str, Callable[[Any, Any], None]] = {
    "nowhere": lambda before, after: None,
    "as the request waits": lambda before, after: after(Writer, "_waiting"),
    "before the transaction": lambda before, after: before(Writer, "_commit"),
    "between keys and records": lambda before, after: after(Statements, "keep_keys"),
    "between records and commit": lambda before, after: after(Statements, "insert"),
    "after the commit": lambda before, after: after(Writer, "_commit"),
    "before the checkpoint": lambda before, after: before(CheckpointFile, "append"),
    "after the checkpoint": lambda before, after: after(CheckpointFile, "append"),
    "before the answer": lambda before, after: before(Writer, "_answer"),
    "after the answer": lambda before, after: after(Writer, "_answer"),
}


def serve(port: int, file_size: int) -> None:
    """Serve until SIGTERM."""
    settings = Settings()
    configure_logging(settings.log_level)
    scorer = open_scorer(settings)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn, once it has finished, raises the signal again
    server = uvicorn.Server(uvicorn.Config(create_app(scorer), port=port, log_level="error", lifespan="off"))
    asyncio.run(server.serve())
    scorer.close()


def main() -> None:
    """Start one service after the other."""
    port = int(sys.argv[1])
    warm_kernels()
    for line in sys.stdin:
        point, nth, file_size = line.rstrip("\n").rsplit(" ", 2)
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)  # its log is not part of the conversation
            die_at(point, int(nth))
            serve(port, int(file_size))
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
