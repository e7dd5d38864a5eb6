"""A bank whose reports, runs and clock a test makes up, with the sensors of the platform looking on."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from cde_assets.automation.training_runs import TRAINING_JOB
from cde_assets.automation.watcher import Watcher
from cde_domain.portfolio import load_portfolio
from cde_resources.releases import ReleasesResource
from cde_serving.clock_file import write_instant
from cde_serving.settings import Settings

NAME = "german_credit"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
DIGEST = "c" * 64


@dg.op
def train() -> None: ...


@dg.job(name=TRAINING_JOB)
def training_job() -> None:
    train()


class Bank:
    """One portfolio with a clock of its own; `champion` says whether a model is promoted."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, *, champion: bool = True, **settings: Any) -> None:
        self.clock_file = folder / "clock"
        self.now = NOON
        settings = {"portfolio": NAME, **settings}
        self.settings = Settings(home=folder / "home", clock_file=self.clock_file, _env_file=None, **settings)
        self.instance = instance
        self.watcher = Watcher.of(self.settings, load_portfolio(NAME), NAME)
        self.cursors: dict[str, str | None] = {}
        if champion:
            self.promote()

    @property
    def now(self) -> datetime:
        """The bank's time."""
        return self._now

    @now.setter
    def now(self, instant: datetime) -> None:
        self._now = instant
        write_instant(self.clock_file, instant)

    def promote(self, bundle: str = "a" * 64) -> None:
        """Write a promotion into the signed ledger."""
        releases = ReleasesResource.of(self.settings, NAME)
        current = releases.store().ledger.current()
        releases.store().ledger.append(
            action="promote",
            portfolio=NAME,
            bundle=bundle,
            expected_sequence=current.sequence if current else 0,
            evidence="b" * 64,
            by="test",
            key=releases.signer(),
            details={"model_digest": DIGEST},
        )

    def report(
        self,
        asset: str,
        *kinds: str,
        retrains: bool = True,
        judged: bool = True,
        days: float = 1,
        as_of: str | None = None,
        bundle: str | None = None,
    ) -> None:
        """Let days pass, and a report be made that raises these alarms; `as_of` is today unless it is given."""
        self.now += timedelta(days=days)
        alarms = [{"what": kind, "said": f"{kind} is out of bounds.", "retrains": retrains} for kind in kinds]
        metadata = {
            "as_of": as_of or f"{self.now:%Y-%m-%d}",
            "bundle": bundle,
            "decisions": 1234,
            "judged": judged,
            "alarm": bool(kinds),
            "alarms": dg.MetadataValue.json(alarms),
        }
        self.instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey([NAME, asset]), metadata=metadata))

    def look(self, sensor: dg.SensorDefinition, *, keep_cursor: bool = True) -> dg.SensorResult:
        """One tick of a sensor; without its cursor being kept it is one that was cut short at its end."""
        cursor = self.cursors.get(sensor.name)
        context = dg.build_sensor_context(instance=self.instance, cursor=cursor, sensor_name=sensor.name)
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        if keep_cursor:
            self.cursors[sensor.name] = result.cursor
        return result

    def train(self, requests: Iterable[dg.RunRequest] | None, *, fails: bool = False) -> int:
        """Carry out what a sensor asked for, as the daemon does: a run key that was used before is passed over."""
        number = 0
        for request in requests or ():
            assert request.job_name == TRAINING_JOB
            tags = {**request.tags, "dagster/run_key": str(request.run_key)}
            known = dg.RunsFilter(tags={"dagster/run_key": str(request.run_key)})
            if request.run_key is not None and self.instance.get_runs(known):
                continue
            number += 1
            self.run(tags, fails=fails)
        return number

    def run(self, tags: Mapping[str, str], *, fails: bool = False) -> None:
        """A training that ends at once."""
        status = dg.DagsterRunStatus.FAILURE if fails else dg.DagsterRunStatus.SUCCESS
        self.instance.create_run_for_job(training_job, tags=dict(tags), status=status)

    @property
    def told(self) -> list[dict[str, Any]]:
        """The alerts that were told, oldest first."""
        log = self.settings.home / "logs" / "alerts.jsonl"
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
