"""The command line of the benchmarks."""

import json
import os
import platform
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.rounds import Figure

LATEST = Path(__file__).parent / "latest.json"
PARTS = ("decision", "http", "batch", "size")

Part = StrEnum("Part", PARTS)  # type: ignore[misc]


def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="What to measure; everything by default.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender has its turn.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="How long each HTTP cell lasts.")] = 15,
) -> None:
    """Measure the decision service beside other ways to serve the same model, all in turn in one run."""
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="cde-bench-") as folder:
        os.environ["CDE_HOME"] = folder
        _measure(parts or list(Part), rounds, seconds, Path(folder), console)


def _measure(parts: Sequence[Part], rounds: int, seconds: int, home: Path, console: Console) -> None:
    from benchmarks import batch, decision, http, size
    from benchmarks.lender import ROWS, TREES, open_lender

    machine = f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    console.print(machine)
    console.print(
        f"{TREES.rounds} trees of depth {TREES.max_depth} on {ROWS:,} simulated personal loans; {rounds} rounds"
    )
    lender = open_lender(home)
    figures: dict[str, Figure] = {}
    if "decision" in parts:
        figures |= decision.measure(lender, rounds, console)
    if "batch" in parts:
        figures |= batch.measure(lender, rounds, console)
    if "size" in parts:
        figures |= size.measure(home, console)
    if "http" in parts:
        figures |= http.measure(lender, rounds, seconds, console)
    before = json.loads(LATEST.read_text(encoding="utf-8")) if LATEST.exists() else {}
    kept = before if before.get("machine") == machine else {}
    LATEST.write_text(json.dumps({**kept, "machine": machine, **figures}, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {LATEST}")


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return names[0] if names else platform.machine()


typer.run(main)
