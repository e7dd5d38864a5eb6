"""The command line of the benchmarks."""

import os
import platform
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

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

    console.print(f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    console.print(
        f"{TREES.rounds} trees of depth {TREES.max_depth} on {ROWS:,} simulated personal loans; {rounds} rounds"
    )
    lender = open_lender(home)
    if "decision" in parts:
        decision.measure(lender, rounds).show(console, "One explained decision in process")
    if "batch" in parts:
        batch.scores_of_a_million(lender, rounds).show(console, "Batch, Parquet to Parquet, without reasons")
        batch.with_reasons(lender, rounds).show(console, "Batch, with reasons")
    if "size" in parts:
        size.show(home, console)
    if "http" in parts:
        http.measure(lender, rounds, seconds, console)


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return names[0] if names else platform.machine()


typer.run(main)
