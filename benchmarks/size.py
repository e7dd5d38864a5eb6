"""What features, training and batch scoring cost in time and memory as the book grows."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.lender import NAME, TREES, simulate
from benchmarks.rounds import Figure
from cde_domain.features.table import feature_table, labels_of, matrix_of
from cde_domain.portfolio import load_portfolio

SIZES = (10_000, 100_000, 1_000_000)
SIMULATED = 20_000  # larger books repeat these applications
STEPS = ("features", "training", "batch")


def measure(home: Path, console: Console) -> dict[str, Figure]:
    """Every step at every size in a process of its own: time, peak memory, and how the time grows with the rows."""
    book = home / "book.pickle"
    simulate(SIMULATED).to_pickle(book)
    table = Table(title="Cost against size, one thread", title_justify="left")
    for heading in ("step", "rows", "seconds", "µs a row", "peak memory, GiB"):
        table.add_column(heading, justify="right")
    taken: dict[str, list[float]] = {step: [] for step in STEPS}
    for step in STEPS:
        for rows in SIZES:
            command = [sys.executable, "-m", "benchmarks.size", step, str(rows), str(book)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, gigabytes = json.loads(done.stdout)
            taken[step].append(seconds)
            table.add_row(step, f"{rows:,}", f"{seconds:.2f}", f"{1e6 * seconds / rows:.1f}", f"{gigabytes:.2f}")
    console.print(table)
    growth = SIZES[-1] // SIZES[-2]
    return {
        f"growth_{step}": {
            "ours": seconds[-1],
            "peer": seconds[-2] * growth,
            "ratio": seconds[-2] * growth / seconds[-1],
            "unit": f"s for {SIZES[-1]:,} rows, against {growth} times the time of {SIZES[-2]:,}",
            "n": 1,
        }
        for step, seconds in taken.items()
    }


def _run(step: str, rows: int, path: Path) -> tuple[float, float]:
    portfolio = load_portfolio(NAME)
    simulated = pd.read_pickle(path)  # noqa: S301  # written by `show`
    chosen = np.random.default_rng(0).integers(0, len(simulated), rows)
    if step == "features":
        book = simulated.iloc[chosen].reset_index(drop=True)
        began = time.perf_counter()
        feature_table(portfolio, book)
        return time.perf_counter() - began, _peak()
    table = feature_table(portfolio, simulated)
    matrix = matrix_of(portfolio, table)[chosen]
    repaid = np.nan_to_num(labels_of(table)[chosen], nan=1.0)
    if step == "training":
        began = time.perf_counter()
        TREES.fit(portfolio.features, matrix, repaid)
        return time.perf_counter() - began, _peak()
    from cde_domain.model.compilation import compile_trees

    trees = compile_trees(TREES.fit(portfolio.features, matrix[:10_000], repaid[:10_000]).ensemble())
    trees.margins(matrix[:10])
    began = time.perf_counter()
    trees.margins(matrix)
    return time.perf_counter() - began, _peak()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
