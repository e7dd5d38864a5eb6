"""Statements about recorded days: their features come out again, and the log that they were read from is whole."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pydantic import ValidationError

from cde_checks.decisions import days_of
from cde_domain.decisions.monitoring.recorded import days, decisions_file, feature_matrix_of, read_decisions
from cde_domain.decisions.monitoring.reproduction import differing, offline_matrix
from cde_domain.portfolio import Portfolio
from cde_domain.release import Bundle, BundleError, load_bundle
from cde_resources.decision_log import DecisionLogResource
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.decision_log import LogUnavailableError
from cde_serving.records.record import ErasedError, Record
from cde_serving.records.replay import REPLAYED, matrix_of
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import VaultError
from cde_serving.records.versions import VersionsOf

SAMPLE = 300
MOST_SHOWN = 5


@dataclass(frozen=True)
class Reproduction:
    """
    What came of recomputing decisions.

    `differing` counts rows by what differs in them; `other_code` were taken by code that is no longer here,
    `impossible` cannot be taken again (their bundle or record is damaged).
    """

    compared: int
    differing: Mapping[str, int]
    other_code: int = 0
    impossible: int = 0


@dg.asset_check(asset="decisions")
def recorded_features_are_reproduced(
    context: dg.AssetCheckExecutionContext,
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    decision_log: DecisionLogResource,
) -> dg.AssetCheckResult:
    """A sample of recorded requests, computed by the code of the feature table, has the features that decided."""
    first, last = days_of(context.run)
    sampled = sample_of(portfolio.home, first, last, SAMPLE)
    try:
        with decision_log.open() as log:
            found = reproduce(log.store(), releases.store().bundles, portfolio.load(), sampled)
    except LogUnavailableError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    problems = [f"{name} differs in {count} of {found.compared} decisions" for name, count in found.differing.items()]
    if found.impossible:
        problems.append(f"{found.impossible} decisions cannot be taken again: run `cde verify-log` and `cde replay`")
    notes = [f"{found.other_code} were decided by code that is no longer here"] if found.other_code else []
    return dg.AssetCheckResult(
        passed=not problems,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(problems + notes) or None,
        metadata={
            "sampled": len(sampled),
            "compared": found.compared,
            "differing_features": len(found.differing),
            "other_code": found.other_code,
        },
    )


@dg.asset_check(asset="decisions")
def log_chain_verifies(decision_log: DecisionLogResource) -> dg.AssetCheckResult:
    """No record of the decision log was changed, added, moved or taken away, as far as checkpoints were signed."""
    try:
        verification = decision_log.verify()
    except LogUnavailableError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    shown = "; ".join(verification.problems[:MOST_SHOWN])
    more = len(verification.problems) - MOST_SHOWN
    return dg.AssetCheckResult(
        passed=not verification.problems,
        severity=dg.AssetCheckSeverity.ERROR,
        description=(f"{shown}; and {more} more" if more > 0 else shown) or None,
        metadata={
            "records": verification.records,
            "chains": verification.chains,
            "checkpoints": verification.checkpoints,
            "unsigned": verification.unsigned,
            "problems": len(verification.problems),
        },
    )


def sample_of(home: Path, first: date, last: date, most: int) -> pd.DataFrame:
    """At most so many recorded decisions of some days, the same ones for the same files, read a day at a time."""
    recorded = [day for day in days(first, last) if decisions_file(home, day).is_file()]
    counts = [pq.read_metadata(decisions_file(home, day)).num_rows for day in recorded]
    chosen = np.sort(np.random.default_rng(last.toordinal()).permutation(sum(counts))[:most])
    parts = [read_decisions(home, last, first)]  # no day, for its columns
    begins = 0
    for day, count in zip(recorded, counts, strict=True):
        places = chosen[(chosen >= begins) & (chosen < begins + count)] - begins
        begins += count
        if len(places):
            parts.append(read_decisions(home, day, day).iloc[places])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def reproduce(store: RecordStore, bundles: Path, portfolio: Portfolio, sampled: pd.DataFrame) -> Reproduction:
    """Compute decisions' features from their requests, and compare them with the record and with the recorded day."""
    by_bundle: dict[str, list[tuple[int, Record]]] = {}
    impossible = 0
    for place, (record_id, tenant) in enumerate(zip(sampled["decision_id"], sampled["tenant"], strict=True)):
        try:
            record = store.get(record_id, tenant, REPLAYED)
        except ErasedError:
            continue
        except VaultError:
            record = None
        if record is None:
            impossible += 1
        elif record.payload.features:  # a decision that failed has none
            by_bundle.setdefault(record.versions.bundle, []).append((place, record))
    versions, differences, compared, other_code = VersionsOf(), Counter[str](), 0, 0
    for digest, of_bundle in by_bundle.items():
        try:
            bundle = load_bundle(bundles / digest, digest)
        except BundleError:
            impossible += len(of_bundle)
            continue
        same_code = [one for one in of_bundle if one[1].versions.code == versions(bundle).code]
        other_code += len(of_bundle) - len(same_code)
        if same_code:
            places, records = zip(*same_code, strict=True)
            compared += len(records)
            differences += _differences(bundle, portfolio, records, sampled.iloc[list(places)])
    return Reproduction(compared, dict(differences), other_code, impossible)


def _differences(bundle: Bundle, portfolio: Portfolio, records: Sequence[Record], rows: pd.DataFrame) -> "Counter[str]":
    features = bundle.portfolio.features
    recorded = np.vstack([matrix_of(features, record.payload.features) for record in records])
    applied_on = [date.fromisoformat(record.applied_at[:10]) for record in records]
    try:
        offline = offline_matrix(bundle.portfolio, [record.payload.request for record in records], applied_on)
    except ValidationError as error:  # which would quote the value
        return Counter({"the request, which the application no longer takes,": error.error_count()})
    found = Counter(differing(features, offline, recorded))
    if [(one.name, one.categories) for one in features] == [(one.name, one.categories) for one in portfolio.features]:
        in_table = differing(features, feature_matrix_of(rows, features), recorded)
        found.update({f"{name} in the recorded day": count for name, count in in_table.items()})
    return found
