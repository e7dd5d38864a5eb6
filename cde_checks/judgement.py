"""What the event log says of the latest challenger: made from what, and which checks passed on exactly that."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import dagster as dg
from dagster import AssetRecordsFilter

from cde_checks import features, governance, loan_book, model
from cde_checks.refusal import Refusal
from cde_domain.governance.card import OF_A_MODEL
from cde_serving.evidence import CheckResult, Materialisation

GATING_MODULES: tuple[ModuleType, ...] = (loan_book, features, model, governance)

REPORTS = (*OF_A_MODEL, "model_card")

EVIDENCE = "evidence_pack"

_POINTER = "dagster/input_event_pointer/"


def gating_checks() -> tuple[tuple[str, str, bool], ...]:
    """The (asset, check, whether it blocks) of every check before the release."""
    return tuple(
        (spec.asset_key.path[-1], spec.name, spec.blocking)
        for module in GATING_MODULES
        for checks in vars(module).values()
        if isinstance(checks, dg.AssetChecksDefinition)
        for spec in checks.check_specs
    )


def required_checks() -> tuple[tuple[str, str], ...]:
    """The (asset, check) names of every blocking check before the release."""
    return tuple((asset, check) for asset, check, blocking in gating_checks() if blocking)


RERUN = "Run the whole job train_and_release"


@dataclass(frozen=True)
class Judged:
    """What the latest challenger and its reports were made from, by asset, and what does not hold together in it."""

    made_from: Mapping[str, Materialisation]
    problems: tuple[Refusal, ...]


def log_refusals(instance: dg.DagsterInstance, portfolio: str, judgement: Judged) -> list[Refusal]:
    """What the event log says against a challenger: what does not hold together, and checks that did not pass."""
    found = list(judgement.problems)
    if judgement.made_from:
        for asset, check in required_checks():
            found += _check_refusals(instance, portfolio, asset, check, judgement.made_from.get(asset))
    return found


def judged(instance: dg.DagsterInstance, portfolio: str, assets: Iterable[str] = REPORTS) -> Judged:
    """The materialisations that the latest ones of some assets were made from, themselves included."""
    made_from: dict[dg.AssetKey, int] = {}
    found: list[Refusal] = []
    read = functools.cache(functools.partial(_record, instance))  # the walks from all reports meet
    for name in assets:
        key = dg.AssetKey([portfolio, name])
        records = instance.fetch_materializations(key, limit=1).records
        if not records:
            return Judged({}, (Refusal(name, "was never materialised", RERUN),))
        found += _merge(made_from, _ancestry(read, key, records[0].storage_id), reader=name)
    about = {key.path[-1]: _materialisation(read, key, storage_id) for key, storage_id in made_from.items()}
    found += [Refusal(name, "was reported by hand, not made by a run", RERUN) for name in about if not about[name].run]
    return Judged(about, tuple(found))


def check_results(
    instance: dg.DagsterInstance, portfolio: str, made_from: Mapping[str, Materialisation]
) -> tuple[CheckResult, ...]:
    """What every check before the release said about exactly these materialisations, as far as it was run on them."""
    results = []
    for asset, check, blocking in gating_checks():
        if (about := made_from.get(asset)) is None:
            continue
        found = _evaluation(instance, dg.AssetKey([portfolio, asset]), check, about.storage_id)
        if found is None:
            continue
        evaluation, run = found
        results.append(
            CheckResult(
                asset=asset,
                check=check,
                blocking=blocking,
                passed=evaluation.passed,
                severity="WARN" if evaluation.severity is dg.AssetCheckSeverity.WARN else "ERROR",
                description=evaluation.description,
                numbers=_numbers(evaluation.metadata),
                storage_id=about.storage_id,
                sha256=about.sha256,
                run=run,
            )
        )
    return tuple(results)


def _numbers(metadata: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    values = {name: value.value for name, value in metadata.items()}
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
        for name, value in values.items()
        if isinstance(value, bool | int | float | str)
    }


_Read = Callable[[dg.AssetKey, int], dg.EventLogRecord | None]


def _ancestry(read: _Read, key: dg.AssetKey, storage_id: int) -> dict[dg.AssetKey, set[int]]:
    """Every materialisation that one was made from, directly or not, itself included, by asset."""
    ancestry: dict[dg.AssetKey, set[int]] = {}
    pending = [(key, storage_id)]
    while pending:
        key, storage_id = pending.pop()
        if storage_id in ancestry.setdefault(key, set()):
            continue
        ancestry[key].add(storage_id)
        record = read(key, storage_id)
        materialization = record.event_log_entry.asset_materialization if record else None
        for tag, value in (materialization.tags or {}).items() if materialization else ():
            if tag.startswith(_POINTER) and value != "NULL":
                pending.append((dg.AssetKey.from_user_string(tag.removeprefix(_POINTER)), int(value)))
    return ancestry


def _record(instance: dg.DagsterInstance, key: dg.AssetKey, storage_id: int) -> dg.EventLogRecord | None:
    found = instance.fetch_materializations(
        AssetRecordsFilter(asset_key=key, storage_ids=[storage_id]), limit=1
    ).records
    return found[0] if found else None


def _metadata(read: _Read, key: dg.AssetKey, storage_id: int) -> Mapping[str, Any]:
    record = read(key, storage_id)
    materialization = record.event_log_entry.asset_materialization if record else None
    return {name: value.value for name, value in materialization.metadata.items()} if materialization else {}


def latest_metadata(instance: dg.DagsterInstance, key: dg.AssetKey, limit: int) -> list[Mapping[str, Any]]:
    """What the latest materialisations of an asset said of themselves, newest first."""
    records = instance.fetch_materializations(key, limit=limit).records
    return [metadata_of(instance, key, record.storage_id) for record in records]


def metadata_of(instance: dg.DagsterInstance, key: dg.AssetKey, storage_id: int) -> Mapping[str, Any]:
    """What one materialisation said of itself."""
    return _metadata(functools.partial(_record, instance), key, storage_id)


def _materialisation(read: _Read, key: dg.AssetKey, storage_id: int) -> Materialisation:
    record = read(key, storage_id)
    return Materialisation(
        storage_id=storage_id,
        run=record.run_id if record else "",
        sha256=_metadata(read, key, storage_id).get("sha256"),
    )


def _merge(
    made_from: dict[dg.AssetKey, int], ancestry: dict[dg.AssetKey, set[int]], *, reader: str
) -> Iterable[Refusal]:
    others = []
    for key, storage_ids in ancestry.items():
        if storage_ids != {made_from.setdefault(key, min(storage_ids))}:
            others.append(key.path[-1])
    if others:
        yield Refusal(reader, f"was made from another {', '.join(sorted(others))} than the rest of the evidence", RERUN)


def _evaluation(
    instance: dg.DagsterInstance, key: dg.AssetKey, check: str, storage_id: int
) -> tuple[dg.AssetCheckEvaluation, str] | None:
    """What a check said last about one materialisation, and the run in which it did."""
    history = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, check), limit=100)
    for record in history:  # latest first
        event = record.event.dagster_event if record.event else None
        evaluation = event.event_specific_data if event else None
        if not isinstance(evaluation, dg.AssetCheckEvaluation) or evaluation.target_materialization_data is None:
            continue
        by_hand = not record.run_id  # Dagster lets anybody report a check as passed
        if evaluation.target_materialization_data.storage_id == storage_id and not by_hand:
            return evaluation, record.run_id
    return None


def _check_refusals(
    instance: dg.DagsterInstance, portfolio: str, asset: str, check: str, about: Materialisation | None
) -> Iterable[Refusal]:
    subject = f"{asset}/{check}"
    if about is None:
        yield Refusal(subject, "nothing was checked that this challenger is made from", RERUN)
        return
    found = _evaluation(instance, dg.AssetKey([portfolio, asset]), check, about.storage_id)
    if found is None:
        yield Refusal(subject, "was not run on what this challenger is made from", RERUN)
    elif not found[0].passed:
        evaluation = found[0]
        said = evaluation.description or ", ".join(f"{k} {v.value}" for k, v in evaluation.metadata.items())
        reason = f"failed ({said})" if said else "failed"
        yield Refusal(subject, reason, "Mend what it names and run train_and_release again")
