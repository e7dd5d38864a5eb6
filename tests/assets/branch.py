"""A branch at work: a real app over a real decision log, and the runs that watch it, on a clock that the test sets."""

import asyncio
import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import dagster as dg
import msgspec
import pandas as pd

from cde_assets.decisions.monitoring import FOLLOW_JOB, MONITOR_JOB
from cde_assets.definitions import build_definitions
from cde_assets.erasing import Erasing
from cde_checks.decisions import FIRST, LAST
from cde_domain.decisions.monitoring.recorded import read_decisions, read_outcomes
from cde_serving.access.rates import Rates
from cde_serving.app import create_app
from cde_serving.clock_file import write_instant
from cde_serving.decision_log import DecisionLog
from cde_serving.follower import ReleaseFollower
from cde_serving.kill_switch import KillSwitch
from cde_serving.metrics import Metrics
from cde_serving.records.record import Record
from cde_serving.scorer import Scorer
from cde_serving.settings import Settings
from tests.serving.helpers import SCORE, AppClient, releases_in
from tests.support import MODULE, TinyLoans, write_tiny_bundle, write_tiny_loans

NAME = "watched_loans"
MATURES_AFTER_DAYS = 5
GENDER = """    protected=(
        ProtectedAttribute(
            "gender",
            lambda book: book["gender"],
            "gate",
            "asked for",
            monitoring=Monitoring(values=("female", "male"), legal_basis="Asked for with the applicant's consent"),
        ),
    ),
)
"""


def write_watched_loans(folder: Path) -> tuple[TinyLoans, Path]:
    """The small portfolio with loans that mature and a protected attribute that is collected, and a bundle of it."""
    module = (
        MODULE.replace('name="tiny_loans"', f'name="{NAME}"')
        .replace("OutcomeLabel, Portfolio, Source", "Monitoring, OutcomeLabel, Portfolio, ProtectedAttribute, Source")
        .replace('"good", "bad")', f'"good", "bad", matures_after_days={MATURES_AFTER_DAYS})')
    )
    assert module.endswith(")\n")
    tiny = write_tiny_loans(folder / "lender", module=module.removesuffix(")\n") + GENDER, name=NAME)
    return tiny, write_tiny_bundle(tiny, folder / "models", seed=1)


class Branch:
    """One home with a service of its own in this process."""

    def __init__(self, home: Path, tiny: TinyLoans, bundle: Path, start: str, log_url: str | None = None) -> None:
        self.clock_file = home / "clock"
        self.set_clock(start)
        self.settings = Settings(
            home=home,
            portfolio=tiny.reference,
            clock_file=self.clock_file,
            decision_log_url=log_url,
            _env_file=None,
        )
        self.folder = self.settings.portfolio_home(NAME)
        self.releases = releases_in(self.folder, self.settings.home / "keys")
        self.releases.promote(bundle, NAME)
        self.portfolio = tiny.portfolio
        self.definitions = build_definitions(tiny.reference, self.settings)

    def __enter__(self) -> Self:
        self.instance = dg.DagsterInstance.ephemeral()
        self.log = DecisionLog.open(self.settings, NAME)
        clock = self.settings.clock()
        releases = ReleaseFollower(self.releases.store, clock)
        releases.start()
        self.scorer = Scorer(
            releases,
            self.log,
            Metrics(),
            clock,
            promote="make demo",
            switch=KillSwitch(self.log.read_engine, NAME),
            keys=None,
            rates=Rates("100000/second"),
        )
        self.client = AppClient(create_app(self.scorer))
        return self

    def __exit__(self, *_: object) -> None:
        self.scorer.close()
        self.instance.dispose()

    def set_clock(self, instant: str) -> None:
        """Let it be this instant (ISO 8601, UTC if it says nothing else)."""
        write_instant(self.clock_file, datetime.fromisoformat(instant + "+00:00"))

    def score(self, customer: str, **changes: Any) -> dict[str, Any]:
        """Decide an application as the service does; it takes a millisecond, by which decisions are ordered."""
        answer = self.client.post(SCORE, json={**self.portfolio.example, "customer_id": customer, **changes})
        assert answer.status_code == 200, answer.text
        write_instant(self.clock_file, self.settings.clock()() + timedelta(milliseconds=1))
        return dict(answer.json())

    def tell(self, decision_id: str, outcome: str, on: str) -> None:
        """Tell what became of a loan."""
        path = f"/api/v1/credit/decisions/{decision_id}/outcome"
        answer = self.client.post(path, json={"outcome": outcome, "date": on})
        assert answer.status_code == 201, answer.text

    def labels(self, name: str, *rows: tuple[str, str, str]) -> Path:
        """Put a labels file into the home."""
        path = self.folder / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(rows, columns=["decision_id", "outcome", "known_on"])
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
        return path

    def erase(self, customer: str) -> None:
        """Erase a customer at once."""
        Erasing(self.log, self.settings, self.portfolio, by="person:officer").erase(customer, at_once=True)

    def shadow(self, record: Record, **changes: Any) -> None:
        """Record a shadow's decision about an answered one."""
        payload = msgspec.structs.replace(record.payload, about=record.record_id)
        asyncio.run(self.log.record(replace(record, kind="shadow", variant="shadow", payload=payload, **changes)))

    def monitor(self, first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        """Record some days, as the job that watches does first."""
        return self._run(MONITOR_JOB, {FIRST: first, LAST: last or first}, "decisions", "outcomes")

    def report(self, name: str) -> dg.ExecuteInProcessResult:
        """Make a report on the days that are recorded."""
        return self._run(MONITOR_JOB, {}, name)

    def follow(self, first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
        """Take late outcomes in, as the job for them does first."""
        return self._run(FOLLOW_JOB, {FIRST: first, LAST: last or first}, "outcomes")

    def _run(self, job: str, tags: dict[str, str], *assets: str) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            tags=tags,
            raise_on_error=False,
            asset_selection=[dg.AssetKey([NAME, asset]) for asset in assets],
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )

    def decisions(self, day: str) -> pd.DataFrame:
        """The recorded decisions of a day."""
        return read_decisions(self.folder, date.fromisoformat(day), date.fromisoformat(day))

    def outcomes(self, day: str) -> list[dict[str, Any]]:
        """The recorded outcomes of a day's decisions."""
        frame = read_outcomes(self.folder, date.fromisoformat(day), date.fromisoformat(day))
        return [dict(row) for row in frame.to_dict("records")]

    def files(self) -> dict[str, bytes]:
        """Every file of recorded days."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted((self.folder / "decisions").rglob("*.parquet"))
        }


def metadata_of(result: dg.ExecuteInProcessResult, asset: str, day: str) -> dict[str, Any]:
    """What a run showed of a day."""
    (event,) = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.materialization.asset_key.path[-1] == asset and event.materialization.partition == day
    ]
    return {name: value.value for name, value in event.metadata.items()}


def checked(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """The checks of a run."""
    return {evaluation.check_name: bool(evaluation.passed) for evaluation in result.get_asset_check_evaluations()}


def said(result: dg.ExecuteInProcessResult) -> str:
    """Everything that a run wrote into Dagster's event log, as JSON."""
    return json.dumps([str(event) for event in result.all_events])


def why(result: dg.ExecuteInProcessResult) -> str:
    """Why the one failed step of a run failed."""
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data
    return str(data.user_failure_data.description if data.user_failure_data else data.error)
