"""Plays days against a service: applicants come, and loans that were granted come to their end."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import httpx
import numpy as np

from cde_assets.traffic.applicants import Applicant, Applicants
from cde_assets.traffic.loans import Loan, Loans
from cde_assets.traffic.service import SCORE, Service
from cde_serving.clock_file import read_instant, write_instant

AT_ONCE = 50  # applications of one instant
OPENS, CLOSES = time(8, tzinfo=UTC), time(20, tzinfo=UTC)
KNOWN_WITHIN = 15  # days after its year is over that a loan's outcome is told


@dataclass
class Tally:
    """What was sent and what came back."""

    decisions: Counter[str] = field(default_factory=Counter)
    variants: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        """Applications that were decided or refused."""
        return self.decisions.total() + sum(n for what, n in self.problems.items() if not what.startswith("outcome"))


@dataclass
class Player:
    """
    Plays the days of one seed.

    With a `clock_file` a day's applications come between 8 and 20 h of that day, and its end is the next midnight; the
    clock never goes back, so that a day which broke off can be played again. With `loans` what was granted is kept, and
    its outcome is returned `outcome_after` days later.
    """

    service: Service
    applicants: Applicants
    seed: int
    clock_file: Path | None = None
    loans: Loans | None = None
    outcome_after: int = 365
    tally: Tally = field(default_factory=Tally)
    progress: Callable[[int], None] = lambda done: None

    async def play(self, day: date, number: int) -> None:
        """
        One day: its applicants, and the outcomes that are known by then.

        Raises:
            TrafficError: the service went away, or refuses the key; what was answered is kept.
        """
        people = await asyncio.to_thread(self.applicants.of_day, day, number)
        delays = np.random.default_rng([self.seed, day.toordinal()]).integers(0, KNOWN_WITHIN, number)
        for first in range(0, number, AT_ONCE):
            self._set_clock(_between(day, first / number))
            places = range(first, min(first + AT_ONCE, number))
            asked = (self._apply(people[place], self._key(day, place), day, int(delays[place])) for place in places)
            granted = await asyncio.gather(*asked)
            if self.loans is not None:
                self.loans.granted(loan for loan in granted if loan)
        if self.loans is not None:
            self._set_clock(datetime.combine(day, CLOSES))
            await self._return(self.loans, day)
        self._set_clock(datetime.combine(day + timedelta(days=1), time(tzinfo=UTC)))

    def _key(self, day: date, place: int) -> str:
        return f"traffic-{self.seed}-{day:%Y%m%d}-{place}"

    async def _apply(self, applicant: Applicant, key: str, day: date, delay: int) -> Loan | None:
        answer = await self.service.post(SCORE, applicant.application, key)
        self.progress(1)
        if answer.status_code != 200:
            self.tally.problems[_problem(answer)] += 1
            return None
        told = answer.json()
        self.tally.decisions[told["decision"]] += 1
        self.tally.variants[told["variant"]] += 1
        if told["decision"] != "APPROVED":
            return None
        return Loan(key, told["decision_id"], applicant.repays, day + timedelta(days=self.outcome_after + delay))

    async def _return(self, loans: Loans, day: date) -> None:
        due = loans.due(day)
        for some in (due[first : first + AT_ONCE] for first in range(0, len(due), AT_ONCE)):
            done = await asyncio.gather(*(self._return_one(loan) for loan in some))
            loans.returned(loan for loan, recorded in zip(some, done, strict=True) if recorded)

    async def _return_one(self, loan: Loan) -> bool:
        body = {"outcome": loan.outcome, "date": loan.known_on.isoformat()}
        answer = await self.service.post(
            f"/api/v1/credit/decisions/{loan.decision_id}/outcome", body, f"{loan.key}-outcome"
        )
        if answer.status_code != 201:
            self.tally.problems[f"outcome: {_problem(answer)}"] += 1
            return False
        self.tally.outcomes[loan.outcome] += 1
        return True

    def _set_clock(self, instant: datetime) -> None:
        if self.clock_file is not None and instant > read_instant(self.clock_file):
            write_instant(self.clock_file, instant)


def _between(day: date, share: float) -> datetime:
    opens, closes = datetime.combine(day, OPENS), datetime.combine(day, CLOSES)
    return (opens + share * (closes - opens)).replace(microsecond=0)


def _problem(answer: httpx.Response) -> str:
    """What was refused, by status, field and kind: never a value."""
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return str(answer.status_code)
    problems: Sequence[dict[str, str]] = detail if isinstance(detail, list) else []
    told = ", ".join(f"{problem.get('field')} {problem.get('type')}" for problem in problems[:3])
    return f"{answer.status_code} {told or detail}"
