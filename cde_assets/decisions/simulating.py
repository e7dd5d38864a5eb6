"""Simulating a policy or model on what was recorded: which files are read, and what the report says."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cde_domain.decisions.monitoring.recorded import (
    FEATURE_PREFIX,
    MOMENT,
    days,
    decisions_file,
    labelled,
    read_decisions,
    read_outcomes,
)
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.decisions.simulation.figures import Applications, fairness, figures, groups_of, moves
from cde_domain.decisions.simulation.replaying import (
    BUNDLE_MISSING,
    IDENTITY,
    NOT_REPRODUCED,
    SimulationError,
    simulate,
)
from cde_domain.decisions.variants import Variant
from cde_domain.digests import file_digest
from cde_domain.portfolio import Portfolio
from cde_domain.release import Bundle, BundleError
from cde_serving.releases import ReleaseStore

DAYS = 30  # that a simulation looks back unless it is told otherwise
NAMED_DAYS = 5

# Said, and not guessed from the rows: an erasure reads the column `customer` also where nobody changes.
CHANGED = pa.schema(
    [(name, pa.string()) for name in ("decision_id", "tenant", "customer")]
    + [("applied_at", MOMENT)]
    + [(name, pa.string()) for name in ("variant", "bundle", "from", "to", "from_codes", "to_codes", "why")]
)

KEPT = {
    BUNDLE_MISSING: "the bundle that decided is not here any more",
    NOT_REPRODUCED: "the bundle that decided gives another answer on what was recorded: see `cde replay`",
}


@dataclass(frozen=True)
class Simulation:
    """Decisions of a period beside the simulated ones (`simulate` has the columns), and the report as JSON."""

    frame: pd.DataFrame
    report: dict[str, Any]

    @property
    def changed(self) -> pd.DataFrame:
        """The decisions that change: ids, from what to what, and why; no score or feature."""
        rows = self.frame[self.frame["changed"]]
        named = rows[IDENTITY]
        codes = {
            f"{side}_codes": rows[name].map(lambda given: " ".join(given))
            for side, name in (("from", "actual_codes"), ("to", "simulated_codes"))
        }
        moved = named.assign(**{"from": rows["actual"], "to": rows["simulated"], **codes, "why": rows["why"]})
        return moved[CHANGED.names]


@dataclass(frozen=True)
class Asked:
    """What is simulated: another policy file, another model by the (first digits of the) digest of its bundle, days."""

    first: date
    last: date
    policy: Path | None = None
    bundle: str | None = None

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise SimulationError(f"the period ends on {self.last}, before it begins on {self.first}")


def last_days(now: datetime, days: int = DAYS) -> tuple[date, date]:
    """The first and the last of so many days that are over."""
    yesterday = now.date() - timedelta(days=1)
    return yesterday - timedelta(days=days - 1), yesterday


def simulation_of(asked: Asked, portfolio: Portfolio, store: ReleaseStore, now: datetime) -> Simulation:
    """
    Simulate on the recorded decisions of a portfolio's home.

    Raises:
        PolicyError: the policy is none, or asks for what the model has not; the message names the field.
        SimulationError: nothing is recorded in those days, or the bundle cannot be used.
        LedgerError, ExperimentError: what says which bundles may run is damaged.
    """
    policy = Policy.read(asked.policy) if asked.policy else None
    decisions = read_decisions(store.folder, asked.first, asked.last)
    decisions = decisions[decisions["variant"] != Variant.SHADOW.value].reset_index(drop=True)
    if decisions.empty:
        raise SimulationError(
            f"no decisions of {asked.first} to {asked.last} have been read from the log: "
            "materialise `decisions` for those days, or run the job `monitor`"
        )
    known = store.named_bundles()
    model = _load(_chosen(asked.bundle, known), portfolio, store) if asked.bundle else None
    deciders = _deciders(set(decisions["bundle"]) & known, portfolio, store)
    engines = {digest: bundle.engine for digest, bundle in deciders.items()}
    frame = simulate(decisions, engines, policy=policy, model=model.engine if model else None)
    outcomes = read_outcomes(store.folder, asked.first, asked.last)
    repaid = _repaid(labelled(decisions, outcomes, now.date(), portfolio.outcome.matures_after_days), decisions)
    applications = Applications(_amounts(decisions, portfolio), repaid)
    kept = Counter(frame.loc[frame["kept"] != "", "kept"])
    report = {
        "portfolio": portfolio.name,
        "first": str(asked.first),
        "last": str(asked.last),
        "as_of": str(now.date()),
        "policy": _described(policy, asked.policy),
        "bundle": model.digest if model else None,
        "decisions": len(frame),
        "taken_again": int((frame["kept"] == "").sum()),
        "kept": dict(kept),
        "changed": int(frame["changed"].sum()),
        "figures": [figure.as_json() for figure in figures(frame, applications, portfolio.economics)],
        "fairness": fairness(frame, groups_of(decisions), portfolio),
        "moves": moves(frame, repaid),
        "notes": [
            *_day_notes(asked, store.folder),
            *_kept_notes(kept, len(frame)),
            *_outcome_notes(frame, repaid),
            *_version_notes(policy, deciders.values()),
            *_code_notes(model, deciders, decisions),
        ],
    }
    return Simulation(frame, report)


def _day_notes(asked: Asked, home: Path) -> list[str]:
    """Which days of the period were never read from the log, so that their decisions are missing here."""
    absent = [day for day in days(asked.first, asked.last) if not decisions_file(home, day).is_file()]
    if not absent:
        return []
    asked_for = (asked.last - asked.first).days + 1
    few = ", ".join(map(str, absent[:NAMED_DAYS])) + (" ..." if len(absent) > NAMED_DAYS else "")
    return [f"{len(absent)} of {asked_for} days are not recorded and were passed over: {few}"]


def _chosen(digest: str, known: Collection[str]) -> str:
    found = sorted(name for name in known if digest and name.startswith(digest))
    if len(found) != 1:
        told = ", ".join(name[:12] for name in sorted(known)) or "none yet"
        raise SimulationError(
            f"{digest!r} names {len(found)} of the bundles that were promoted or in an experiment: {told}"
        )
    return found[0]


def _load(digest: str, portfolio: Portfolio, store: ReleaseStore) -> Bundle:
    try:
        return store.load_bundle(digest, portfolio.name)
    except BundleError as error:
        raise SimulationError(str(error)) from error


def _deciders(digests: Collection[str], portfolio: Portfolio, store: ReleaseStore) -> dict[str, Bundle]:
    found = {}
    for digest in sorted(digests):
        try:
            found[digest] = store.load_bundle(digest, portfolio.name)
        except BundleError:  # its decisions are kept as they were, and the report says so
            continue
    return found


def _repaid(mature: pd.DataFrame, decisions: pd.DataFrame) -> NDArray[np.float64]:
    by_id = mature.set_index("decision_id")["repaid"].astype(float)
    return by_id.reindex(decisions["decision_id"]).to_numpy(dtype=np.float64)


def _amounts(decisions: pd.DataFrame, portfolio: Portfolio) -> NDArray[np.float64] | None:
    if not portfolio.amount:
        return None
    columns = decisions.reindex(columns=[FEATURE_PREFIX + name for name in portfolio.amount])
    return columns.to_numpy(dtype=np.float64).prod(axis=1)


def _described(policy: Policy | None, path: Path | None) -> dict[str, Any] | None:
    if policy is None or path is None:
        return None
    return {
        "file": path.name,
        "sha256": file_digest(path),
        "version": policy.version,
        "approve_at": policy.approve_at,
        "review_at": policy.review_at,
        "rules": [rule.code for rule in policy.rules],
    }


def _kept_notes(kept: Mapping[str, int], rows: int) -> list[str]:
    return [
        f"{count:,} of {rows:,} decisions are kept as they were: "
        + KEPT.get(code, f"neither model nor policy led to them ({code})")
        for code, count in sorted(kept.items())
    ]


def _outcome_notes(frame: pd.DataFrame, repaid: NDArray[np.float64]) -> list[str]:
    new = (frame["simulated"] == Outcome.APPROVED.value) & (frame["actual"] != Outcome.APPROVED.value)
    unknown = int((new.to_numpy() & np.isnan(repaid)).sum())
    if not unknown:
        return []
    return [
        f"{unknown:,} of {int(new.sum()):,} newly approved applications have no mature outcome (most were not "
        "granted), so that scores alone speak of them"
    ]


def _version_notes(policy: Policy | None, deciders: Collection[Bundle]) -> list[str]:
    if policy is None:
        return []
    taken = any(
        bundle.engine.policy.version == policy.version and bundle.engine.policy != policy for bundle in deciders
    )
    told = f"the policy calls itself version {policy.version}, as another one did that decided: give it its own"
    return [told] if taken else []


def _code_notes(model: Bundle | None, deciders: Mapping[str, Bundle], decisions: pd.DataFrame) -> list[str]:
    if model is None:
        return []
    own = _portfolio_files(model)
    others = [digest for digest, bundle in deciders.items() if _portfolio_files(bundle) != own]
    count = int(decisions["bundle"].isin(others).sum())
    if not count:
        return []
    return [
        f"{count:,} decisions recorded features that another version of the portfolio's code had computed than the "
        "model's own; they are taken as recorded"
    ]


def _portfolio_files(bundle: Bundle) -> dict[str, str]:
    files: dict[str, str] = bundle.manifest["files"]
    return {name: digest for name, digest in files.items() if name.startswith("portfolio/") and name.endswith(".py")}
