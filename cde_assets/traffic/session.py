"""A session of traffic: the service, the applicants, the loans that are open, and how it went."""

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cde_assets.api_keys import key_for_a_moment
from cde_assets.traffic.applicants import Applicants
from cde_assets.traffic.loans import Loans
from cde_assets.traffic.playing import Player, Tally
from cde_assets.traffic.service import Service
from cde_domain.portfolio import load_portfolio
from cde_serving.settings import Settings

YEAR = 365


@dataclass
class Session:
    """Traffic of one seed against one service; `tally` grows as it is played."""

    settings: Settings
    applicants: Applicants
    seed: int
    outcomes: bool
    outcomes_after: int
    connections: int
    url: str
    key: str | None
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    waiting: int = 0  # loans whose outcome is still open

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        seed: int,
        drift: float = 0.0,
        outcomes: bool = False,
        outcomes_after: int | None = None,
        connections: int = 8,
        url: str | None = None,
        key: str | None = None,
    ) -> Self:
        """
        As the settings say; without a key one is made for as long as the session is played.

        Raises:
            ApplicantsError, LoanBookError: as `Applicants`.
        """
        portfolio = load_portfolio(settings.portfolio)
        options = portfolio.options.model_validate(settings.source_options)
        matures = portfolio.outcome.matures_after_days
        return cls(
            settings=settings,
            applicants=Applicants(portfolio, options, seed=seed, drift=drift),
            seed=seed,
            outcomes=outcomes,
            outcomes_after=next(days for days in (outcomes_after, matures, YEAR) if days is not None),
            connections=connections,
            url=url or f"http://{settings.host}:{settings.port}",
            key=key,
        )

    def play(self, days: int, rate: int) -> None:
        """
        Play days from the present one on, with so many applicants each.

        Raises:
            TrafficError: the service is away, goes by another clock, or refuses the key.
            LogUnavailableError: no API key could be made.
        """
        started = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        try:
            console = Console()
            shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
            with self._key(days) as key, shown as progress:
                asyncio.run(self._play(days, rate, key, progress))
        finally:
            self.seconds += time.monotonic() - started

    def _key(self, days: int) -> AbstractContextManager[str | None]:
        if self.key is not None or self.settings.auth == "off":
            return nullcontext(self.key)
        # On the injected clock the key grows older by as many days as are played.
        return key_for_a_moment(self.settings, "score", lifetime=timedelta(days=days + 1))

    async def _play(self, days: int, rate: int, key: str | None, progress: Progress) -> None:
        name, now = self.settings.portfolio_name(), self.settings.clock()()
        first: date = now.date()
        loans = Loans(self.settings.portfolio_home(name) / "traffic" / f"{self.seed}.jsonl")
        task = progress.add_task("", total=days * rate)
        async with Service(self.url, key, connections=self.connections) as service:
            await service.check(name, now if self.settings.clock_file else None)
            player = Player(
                service,
                self.applicants,
                self.seed,
                clock_file=self.settings.clock_file,
                loans=loans if self.outcomes else None,
                outcome_after=self.outcomes_after,
                tally=self.tally,
                progress=lambda done: progress.advance(task, done),
            )
            try:
                for day in (first + timedelta(days=number) for number in range(days)):
                    progress.update(task, description=f"{day}")
                    await player.play(day, rate)
            finally:
                self.waiting = len(loans)

    def summary(self) -> Table:
        """What was sent and what came back, to be printed."""
        table = Table(title=f"Traffic to {self.url}, seed {self.seed}", title_justify="left", show_header=False)
        sent = self.tally.sent
        table.add_row(
            "applications", f"{sent:,} in {self.seconds:.1f} s, {sent / max(self.seconds, 1e-9):,.0f} a second"
        )
        for what, counts in (("", self.tally.decisions), ("by the ", self.tally.variants)):
            for name, count in sorted(counts.items()):
                table.add_row(f"{what}{name}", f"{count:,} ({count / max(sent, 1):.1%})")
        for outcome, count in sorted(self.tally.outcomes.items()):
            table.add_row(f"outcome {outcome}", f"{count:,}")
        if self.outcomes:
            table.add_row("outcomes still open", f"{self.waiting:,}")
        for problem, count in self.tally.problems.most_common():
            table.add_row(f"[red]{problem}[/red]", f"{count:,}")
        return table
