"""The loans that simulated applicants were granted, until their outcome is returned."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Loan:
    """A granted loan: the idempotency key it was asked for with, what will become of it, and when that is known."""

    key: str
    decision_id: str
    repays: bool
    known_on: date

    @property
    def outcome(self) -> str:
        """What the outcome route is told."""
        return "repaid" if self.repays else "defaulted"


class Loans:
    """
    Loans in a file of JSON lines, so that a later run returns what an earlier one left open.

    A line that a crash cut off is passed over: whoever asks for the loan again gets the same answer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, Loan] = {}
        self._returned: set[str] = set()
        if path.exists():
            kept = path.read_text(encoding="utf-8")
            for line in kept.splitlines():
                self._take(line)
            if kept and not kept.endswith("\n"):  # the next line must not be glued to a cut one
                self._append_text("\n")

    def __len__(self) -> int:
        """How many loans wait for their outcome."""
        return len(self._open)

    def granted(self, loans: Iterable[Loan]) -> None:
        """Keep loans; those that are known already, as after a rerun, are not kept twice."""
        fresh = [loan for loan in loans if loan.key not in self._open and loan.key not in self._returned]
        self._open |= {loan.key: loan for loan in fresh}
        self._append({**asdict(loan), "known_on": loan.known_on.isoformat()} for loan in fresh)

    def due(self, day: date) -> list[Loan]:
        """The loans whose outcome is known by a day and not returned yet, the oldest first."""
        return sorted((loan for loan in self._open.values() if loan.known_on <= day), key=lambda loan: loan.known_on)

    def returned(self, loans: Iterable[Loan]) -> None:
        """Strike loans off whose outcome the service has recorded."""
        keys = [loan.key for loan in loans]
        for key in keys:
            self._open.pop(key, None)
        self._returned.update(keys)
        self._append({"returned": key} for key in keys)

    def _take(self, line: str) -> None:
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        if "returned" in told:
            self._open.pop(told["returned"], None)
            self._returned.add(told["returned"])
        else:
            loan = Loan(told["key"], told["decision_id"], told["repays"], date.fromisoformat(told["known_on"]))
            self._open[loan.key] = loan

    def _append(self, lines: Iterable[dict[str, Any]]) -> None:
        self._append_text("".join(json.dumps(line) + "\n" for line in lines))

    def _append_text(self, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
