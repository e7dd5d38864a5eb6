"""The sensor that trains a challenger when the loan book has new data."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict

from cde_assets.automation.training_runs import (
    TRAINING_JOB,
    LastTraining,
    training_fell_through,
    training_request,
    unfinished_training,
)
from cde_assets.automation.watcher import Watcher
from cde_domain.digests import file_digest, folder_digests, json_digest
from cde_domain.portfolio import Portfolio


class Digested(BaseModel):
    """A file's digest, and what the file looked like when it was computed."""

    model_config = ConfigDict(frozen=True)

    size: int
    modified_ns: int
    digest: str


class Memory(BaseModel):
    """
    The cursor: the version of the data that was answered last, one that was seen once, and the newest training.

    New data counts when two looks find the same, so that no half-copied file is trained on. `changes` counts what was
    asked for.
    """

    model_config = ConfigDict(frozen=True)

    answered: str | None = None
    seen: str | None = None
    changes: int = 0
    files: dict[str, Digested] = {}
    training: LastTraining = LastTraining()


def new_loans_refresh(watcher: Watcher) -> dg.SensorDefinition:
    """The sensor of this name."""
    options = watcher.settings.source_options if watcher.chosen else {}

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        memory = Memory.model_validate_json(context.cursor) if context.cursor else Memory()
        version, files = data_version(watcher.portfolio, options, memory.files)
        training = memory.training.now(context.instance, watcher.name, watcher.clock())
        memory = memory.model_copy(update={"files": files, "training": training})
        said, memory, asks = _look(watcher, context.instance, memory, version)
        cursor = memory.model_dump_json()
        if not asks:
            return dg.SensorResult(skip_reason=said, cursor=cursor)
        run_key = f"new_loans:{memory.changes}:{memory.answered}"
        request = training_request(watcher.name, "new_loans", run_key=run_key, now=watcher.clock())
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    return watcher.sensor(
        "new_loans_refresh",
        evaluate,
        job_name=TRAINING_JOB,
        description="New data in the loan book (other files, other options, another version that a source tells) has a "
        "challenger trained on it, and again after the cooldown if that failed.",
    )


def _look(
    watcher: Watcher, instance: dg.DagsterInstance, memory: Memory, version: str | None
) -> tuple[str, Memory, bool]:
    """What is said, the memory after it, and whether a training is asked for."""
    if version is None:
        return "A file of the loan book is missing.", memory, False
    if memory.answered is None or not watcher.has_champion():
        now = memory.model_copy(update={"answered": version, "seen": None})
        return "Looking out for other data from now on.", now, False
    if version == memory.answered:
        memory = memory.model_copy(update={"seen": None})
        if not memory.changes or not training_fell_through(instance, watcher.name, "new_loans"):
            return "No new data.", memory, False
        over = memory.training.over(timedelta(days=watcher.cooldown_days))
        if over is not None and watcher.clock() < over:
            return f"The training on the new data failed; from {over:%Y-%m-%d} on it is tried again.", memory, False
    elif version != memory.seen:
        return (
            "New data: the next look tells whether it is complete.",
            memory.model_copy(update={"seen": version}),
            False,
        )
    if unfinished_training(instance, watcher.name):
        return "New data waits until the training that goes on has ended.", memory, False
    if experiment := watcher.experiment():
        return f"New data waits until the experiment {experiment} has ended.", memory, False
    changes = {"answered": version, "seen": None, "changes": memory.changes + 1}
    return "New data.", memory.model_copy(update=changes), True


def data_version(
    portfolio: Portfolio, options: Mapping[str, Any], known: Mapping[str, Digested]
) -> tuple[str | None, dict[str, Digested]]:
    """
    A digest of all that the sources read: options, files that they name, and versions that sources tell.

    Files that look as they did when they were digested are not read again. None if a file is missing.
    """
    chosen = portfolio.options.model_validate(options)
    files: dict[str, Digested] = {}
    try:
        values = _with_digests(chosen.model_dump(), known, files)
    except FileNotFoundError:
        return None, dict(known)
    told = {source.name: source.version(chosen) for source in portfolio.sources if source.version is not None}
    return json_digest({"options": values, "sources": told}), files


def _with_digests(value: Any, known: Mapping[str, Digested], files: dict[str, Digested]) -> Any:
    if isinstance(value, Path):
        return json_digest(folder_digests(value)) if value.is_dir() else _digest(value, known, files)
    if isinstance(value, Mapping):
        return {str(name): _with_digests(part, known, files) for name, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [_with_digests(part, known, files) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _digest(path: Path, known: Mapping[str, Digested], files: dict[str, Digested]) -> str:
    stat = path.stat()
    seen = known.get(str(path))
    if seen is None or (seen.size, seen.modified_ns) != (stat.st_size, stat.st_mtime_ns):
        seen = Digested(size=stat.st_size, modified_ns=stat.st_mtime_ns, digest=file_digest(path))
    files[str(path)] = seen
    return seen.digest
