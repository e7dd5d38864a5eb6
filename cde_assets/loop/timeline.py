"""What happened on which simulated day, and who did it: told as it happens, and kept."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WORLD = "the world"  # time, applicants, the people of the lender: what the loop plays itself


@dataclass(frozen=True)
class Happening:
    """One line of the timeline; `after` is in seconds of real time since the loop began."""

    at: datetime
    after: float
    who: str
    what: str


@dataclass
class Timeline:
    """Happenings in order, shown as they come."""

    console: Console
    clock: Callable[[], datetime]
    began: float = field(default_factory=time.monotonic)
    happenings: list[Happening] = field(default_factory=list)

    def tell(self, who: str, what: str, *, at: datetime | None = None, style: str = "") -> None:
        """Add a happening, of this instant unless said otherwise."""
        happening = Happening(at or self.clock(), self.seconds, who, what)
        self.happenings.append(happening)
        row = Table.grid(padding=(0, 2))
        for width in (16, 7, 24):
            row.add_column(width=width, no_wrap=True)
        row.add_column(overflow="fold")
        row.add_row(
            f"{happening.at:%Y-%m-%d %H:%M}",
            Text(f"{happening.after:4.0f} s", style="dim"),
            Text(who, style="dim" if who == WORLD else "cyan"),
            Text(what, style=style),
        )
        self.console.print(row)

    @property
    def seconds(self) -> float:
        """Real time since the loop began."""
        return time.monotonic() - self.began

    def write(self, path: Path, summary: dict[str, Any]) -> None:
        """Keep the timeline with its summary as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        told = [
            {**asdict(happening), "at": happening.at.isoformat(), "after": round(happening.after, 1)}
            for happening in self.happenings
        ]
        path.write_text(json.dumps({"summary": summary, "timeline": told}, indent=2) + "\n", encoding="utf-8")
