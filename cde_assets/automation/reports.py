"""What the monitoring reports say, read from the metadata of their materialisations."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg

from cde_domain.decisions.monitoring.episodes import Sighting, Watch

DRIFT, ESTIMATED, LIVE = "drift_report", "estimated_performance", "live_performance"
READ_AT_ONCE = 1_000
LOOKED_BACK = 100


@dataclass(frozen=True)
class Report:
    """One materialisation of a report: what it says for the sensors, and for people."""

    sighting: Sighting
    as_of: str
    decisions: int | None
    sentences: tuple[str, ...]

    def said(self) -> str:
        """Its alarms in sentences."""
        basis = f" on {self.decisions:,} decisions" if self.decisions is not None else ""
        return "\n".join((*self.sentences, f"So says the report as of {self.as_of}{basis}."))


def reports_after(instance: dg.DagsterInstance, key: dg.AssetKey, number: int) -> list[Report]:
    """The reports that were made after the one of this number, oldest first."""
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, after_storage_id=number), limit=READ_AT_ONCE, ascending=True
    )
    return [_report(record) for record in found.records]


def report_of(instance: dg.DagsterInstance, key: dg.AssetKey, number: int) -> Report | None:
    """The report of this number; None where Dagster was told to forget it."""
    found = instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key, storage_ids=[number]), limit=1)
    return _report(found.records[0]) if found.records else None


def last_day(now: datetime) -> date:
    """The last day that is over."""
    return now.date() - timedelta(days=1)


def is_heard(instance: dg.DagsterInstance, key: dg.AssetKey, run_id: str, now: datetime) -> bool:
    """Whether a sensor hears of an alarm that a report of this run raises: one that looks back says nothing to it."""
    watch, heard = Watch(), False
    for record in reversed(instance.fetch_materializations(key, limit=LOOKED_BACK).records):
        sighting = _report(record).sighting
        watch = watch.after(sighting, last_day(now))
        heard |= record.run_id == run_id and bool(sighting.kinds) and watch.heard == sighting.number
    return heard


def _report(record: dg.EventLogRecord) -> Report:
    metadata = metadata_of(record)
    raised = [alarm for alarm in metadata.get("alarms") or [] if isinstance(alarm, dict)] if metadata["alarm"] else []
    kinds = tuple(sorted({str(alarm.get("what", "alarm")) for alarm in raised})) or ("alarm",) * metadata["alarm"]
    return Report(
        sighting=Sighting(
            number=record.storage_id,
            day=_day(metadata.get("as_of")),
            bundle=bundle if isinstance(bundle := metadata.get("bundle"), str) else None,
            judged=bool(metadata.get("judged", True)),
            kinds=kinds,
            retrains=any(alarm.get("retrains", True) for alarm in raised) if raised else metadata["alarm"],
        ),
        as_of=str(metadata.get("as_of", "an unknown day")),
        decisions=metadata.get("decisions"),
        sentences=tuple(str(alarm.get("said", alarm.get("what", "It raises an alarm."))) for alarm in raised),
    )


def _day(as_of: object) -> date | None:
    try:
        return date.fromisoformat(str(as_of))
    except ValueError:
        return None


def metadata_of(record: dg.EventLogRecord) -> dict[str, Any]:
    """The metadata of a materialisation as plain values; `alarm` is always there."""
    materialisation = record.asset_materialization
    values = materialisation.metadata if materialisation else {}
    plain = {name: value.value for name, value in values.items()}
    return {**plain, "alarm": bool(plain.get("alarm", False))}
