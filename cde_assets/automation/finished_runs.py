"""Runs that ended, each looked at once, whatever happens to the daemon in between."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict

from cde_domain.clock import utc_now

AT_ONCE = 25
FIRST_LOOK = timedelta(days=1)  # by the machine's clock, which stamps Dagster's events


class Cursor(BaseModel):
    """The newest event of each kind that was looked at."""

    model_config = ConfigDict(frozen=True)

    seen: dict[str, int] = {}


def read_cursor(text: str | None) -> Cursor:
    """The cursor in a text; none yet is an empty one."""
    return Cursor.model_validate_json(text) if text else Cursor()


def ended_runs(
    instance: dg.DagsterInstance, cursor: Cursor, kinds: Sequence[dg.DagsterEventType], portfolio: str
) -> tuple[list[dg.DagsterRun], Cursor]:
    """
    Some runs of a portfolio that ended since the cursor, oldest first of each kind, and the cursor behind them.

    The first look goes back a day.
    """
    ended: list[dg.DagsterRun] = []
    seen = dict(cursor.seen)
    for kind in kinds:
        if kind.value not in seen:
            seen[kind.value] = _a_day_ago(instance, kind)
        for record in _events(instance, kind, seen[kind.value]):
            seen[kind.value] = record.storage_id
            run = instance.get_run_by_id(record.run_id)
            if run is not None and is_of(run, portfolio):
                ended.append(run)
    return ended, Cursor(seen=seen)


def _events(instance: dg.DagsterInstance, kind: Any, seen: int) -> Sequence[dg.EventLogRecord]:
    wanted = dg.RunStatusChangeRecordsFilter(event_type=kind, after_storage_id=seen)
    return instance.fetch_run_status_changes(wanted, limit=AT_ONCE, ascending=True).records


def _a_day_ago(instance: dg.DagsterInstance, kind: Any) -> int:
    before = dg.RunStatusChangeRecordsFilter(event_type=kind, before_timestamp=(utc_now() - FIRST_LOOK).timestamp())
    found = instance.fetch_run_status_changes(before, limit=1).records
    return found[0].storage_id if found else 0


def is_of(run: dg.DagsterRun, portfolio: str) -> bool:
    """Whether a run is about this portfolio: by the tag of its job, or by the assets that somebody chose."""
    if "portfolio" in run.tags:
        return run.tags["portfolio"] == portfolio
    checks = {key.asset_key for key in run.asset_check_selection or ()}
    return any(key.path[0] == portfolio for key in {*(run.asset_selection or ()), *checks})


def evaluations_in(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetCheckEvaluation]:
    """What the checks of a run said."""
    found = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    events = [record.event_log_entry.dagster_event for record in found]
    return [event.asset_check_evaluation_data for event in events if event is not None]
