"""The gate: does the event log hold a passed check for every statement, about exactly what is to be promoted?

A blocking check stops what follows only within its own run; a champion materialised alone would slip past it. So the
gate asks the log itself, for the materialisations that the challenger and its reports were made from.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

import dagster as dg
from dagster import AssetRecordsFilter

from cde_checks import features, governance, loan_book, model

GATING_MODULES: tuple[ModuleType, ...] = (loan_book, features, model, governance)
REPORTS = (
    "challenger_model",
    "evaluation",
    "fairness_report",
    "explanation_report",
    "latency_report",
    "model_card",
)
_POINTER = "dagster/input_event_pointer/"


def required_checks() -> tuple[tuple[str, str], ...]:
    """The (asset, check) names of every blocking check before the release."""
    return tuple(
        (spec.asset_key.path[-1], spec.name)
        for module in GATING_MODULES
        for checks in vars(module).values()
        if isinstance(checks, dg.AssetChecksDefinition)
        for spec in checks.check_specs
        if spec.blocking
    )


@dataclass(frozen=True)
class Refusal:
    """One reason why a challenger cannot be promoted, and what to do about it."""

    subject: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}. {self.remedy}."


def refusals(instance: dg.DagsterInstance, portfolio: str) -> list[Refusal]:
    """Why the latest challenger of a portfolio cannot be promoted; empty if it can."""
    made_from: dict[dg.AssetKey, int] = {}
    found: list[Refusal] = []
    for name in REPORTS:
        key = dg.AssetKey([portfolio, name])
        records = instance.fetch_materializations(key, limit=1).records
        if not records:
            return [Refusal(name, "was never materialised", "Run the whole job train_and_release")]
        found += _merge(made_from, _ancestry(instance, key, records[0].storage_id), reader=name)
    for asset, check in required_checks():
        key = dg.AssetKey([portfolio, asset])
        if key not in made_from:
            found.append(Refusal(f"{asset}/{check}", "nothing was checked that this challenger is made from", _RERUN))
            continue
        found += _check_refusal(instance, key, check, made_from[key])
    return found


_RERUN = "Run the whole job train_and_release"


def _ancestry(instance: dg.DagsterInstance, key: dg.AssetKey, storage_id: int) -> dict[dg.AssetKey, set[int]]:
    """Every materialisation that one was made from, directly or not, itself included, by asset."""
    ancestry: dict[dg.AssetKey, set[int]] = {}
    pending = [(key, storage_id)]
    while pending:
        key, storage_id = pending.pop()
        if storage_id in ancestry.setdefault(key, set()):
            continue
        ancestry[key].add(storage_id)
        found = instance.fetch_materializations(
            AssetRecordsFilter(asset_key=key, storage_ids=[storage_id]), limit=1
        ).records
        materialization = found[0].event_log_entry.asset_materialization if found else None
        for tag, value in (materialization.tags or {}).items() if materialization else ():
            if tag.startswith(_POINTER) and value != "NULL":
                pending.append((dg.AssetKey.from_user_string(tag.removeprefix(_POINTER)), int(value)))
    return ancestry


def _merge(
    made_from: dict[dg.AssetKey, int], ancestry: dict[dg.AssetKey, set[int]], *, reader: str
) -> Iterable[Refusal]:
    for key, storage_ids in ancestry.items():
        known = made_from.setdefault(key, min(storage_ids))
        if storage_ids != {known}:
            name = key.path[-1]
            yield Refusal(reader, f"was made from another {name} than the rest of the evidence", _RERUN)


def _check_refusal(instance: dg.DagsterInstance, key: dg.AssetKey, check: str, storage_id: int) -> list[Refusal]:
    subject = f"{key.path[-1]}/{check}"
    history = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, check), limit=100)
    for record in history:  # latest first
        event = record.event.dagster_event if record.event else None
        evaluation = event.event_specific_data if event else None
        if not isinstance(evaluation, dg.AssetCheckEvaluation) or evaluation.target_materialization_data is None:
            continue
        if evaluation.target_materialization_data.storage_id != storage_id:
            continue
        if record.status.value == "SUCCEEDED":
            return []
        said = evaluation.description or ", ".join(f"{k} {v.value}" for k, v in evaluation.metadata.items())
        return [
            Refusal(
                subject, f"failed ({said})" if said else "failed", "Mend what it names and run train_and_release again"
            )
        ]
    return [Refusal(subject, "was not run on what this challenger is made from", _RERUN)]
