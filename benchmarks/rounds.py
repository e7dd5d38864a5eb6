"""Contenders take turns within every round, so that what slows the machine for a while slows them all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

Figure = dict[str, float | int | str]  # ours, peer, ratio (more than 1: ours is better), unit, n


@dataclass(frozen=True)
class Results:
    """What was measured: for every contender one value a round, the first contender being ours."""

    unit: str
    higher_is_better: bool
    values: Mapping[str, list[float]]

    def ratios(self, name: str) -> list[float]:
        """How many times better ours is than a contender, round by round."""
        pairs = zip(next(iter(self.values.values())), self.values[name], strict=True)
        return [ours / theirs if self.higher_is_better else theirs / ours for ours, theirs in pairs]

    def figures(self, names: Mapping[str, str], ours: str | None = None) -> dict[str, Figure]:
        """The figures of contenders under their published names; `ours` is the first contender unless named."""
        mine = ours or next(iter(self.values))
        found: dict[str, Figure] = {}
        for contender, name in names.items():
            pairs = list(zip(self.values[mine], self.values[contender], strict=True))
            ratios = [our / peer if self.higher_is_better else peer / our for our, peer in pairs]
            found[name] = {
                "ours": float(np.median(self.values[mine])),
                "peer": float(np.median(self.values[contender])),
                "ratio": float(np.median(ratios)),
                "unit": self.unit,
                "n": len(ratios),
            }
        return found

    def show(self, console: Console, title: str) -> None:
        """Print median and range of every contender, and of its ratio to ours."""
        table = Table(title=title, title_justify="left")
        for heading in ("", self.unit, "range", "ours is better by", "range"):
            table.add_column(heading, justify="left" if not heading else "right")
        for name, values in self.values.items():
            ratios = self.ratios(name)
            table.add_row(
                name,
                f"{np.median(values):,.4g}",
                f"{min(values):,.4g} to {max(values):,.4g}",
                f"{np.median(ratios):.2f} x",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            )
        console.print(table)


def in_turn(
    contenders: Mapping[str, Callable[[], float]], rounds: int, *, unit: str, higher_is_better: bool = False
) -> Results:
    """Let every contender run once a round, each round beginning with another one."""
    names = list(contenders)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            values[name].append(contenders[name]())
    return Results(unit, higher_is_better, values)
