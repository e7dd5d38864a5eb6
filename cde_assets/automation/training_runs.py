"""Trainings that nobody pressed a button for: how they are asked for, and when the last one was."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal, Self

import dagster as dg
from pydantic import BaseModel, ConfigDict

from cde_assets.failures import failure_in_words

TRAINING_JOB = "train_challenger"

Why = Literal["drift", "decay", "new_loans", "weekly"]
WHY, REQUESTED_AT, EPISODE = "cde/why", "cde/requested_at", "cde/episode"

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def training_request(
    portfolio: str, why: Why, *, run_key: str, now: datetime, tags: Mapping[str, str] | None = None
) -> dg.RunRequest:
    """Ask for a training, saying why and when."""
    return dg.RunRequest(
        run_key=run_key,
        job_name=TRAINING_JOB,
        tags={"portfolio": portfolio, WHY: why, REQUESTED_AT: now.isoformat(), **(tags or {})},
    )


def unfinished_training(instance: dg.DagsterInstance, portfolio: str) -> dg.DagsterRun | None:
    """A training that is queued or running."""
    runs = instance.get_runs(_trainings(portfolio, statuses=UNFINISHED), limit=1)
    return runs[0] if runs else None


def training_failed(instance: dg.DagsterInstance, portfolio: str, episode: str) -> bool:
    """Whether the newest training that was asked for in an episode failed."""
    runs = instance.get_runs(_trainings(portfolio, tags={EPISODE: episode}), limit=1)
    return bool(runs) and runs[0].status is dg.DagsterRunStatus.FAILURE


def training_fell_through(instance: dg.DagsterInstance, portfolio: str, why: Why) -> bool:
    """
    Whether the newest training for a reason failed, and no training since then succeeded.

    One that checks stopped did its work: they would say the same of the same loans, and people were told of them.
    """
    asked = next(iter(instance.get_run_records(_trainings(portfolio, tags={WHY: why}), limit=1)), None)
    if asked is None or asked.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return False
    done = _trainings(portfolio, statuses=[dg.DagsterRunStatus.SUCCESS])
    if any(record.storage_id > asked.storage_id for record in instance.get_run_records(done, limit=1)):
        return False
    return not _stopped_by_checks(instance, asked.dagster_run.run_id)


def _stopped_by_checks(instance: dg.DagsterInstance, run_id: str) -> bool:
    found = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    events = [record.event_log_entry.dagster_event for record in found]
    return bool(events) and all(event is not None and failure_in_words(event) is None for event in events)


class LastTraining(BaseModel):
    """
    The newest training that a sensor knows of, and when it was, by the clock that tells it the time.

    A clock that is set back cannot make the next training wait longer than one cooldown.
    """

    model_config = ConfigDict(frozen=True)

    run: str | None = None
    at: datetime | None = None

    def now(self, instance: dg.DagsterInstance, portfolio: str, now: datetime) -> Self:
        """The same after another look, at `now`."""
        newest = next(iter(instance.get_run_records(_trainings(portfolio), limit=1)), None)
        at = self.at
        run = self.run
        if newest is not None and newest.dagster_run.run_id != self.run:
            run = newest.dagster_run.run_id
            stated = newest.dagster_run.tags.get(REQUESTED_AT)
            at = datetime.fromisoformat(stated) if stated else newest.create_timestamp
        return type(self)(run=run, at=min(at, now) if at else None)

    def over(self, cooldown: timedelta) -> datetime | None:
        """When the cooldown ends; None if there was no training."""
        return self.at + cooldown if self.at else None


def _trainings(
    portfolio: str, *, statuses: list[dg.DagsterRunStatus] | None = None, tags: Mapping[str, str] | None = None
) -> dg.RunsFilter:
    return dg.RunsFilter(job_name=TRAINING_JOB, statuses=statuses, tags={"portfolio": portfolio, **(tags or {})})
