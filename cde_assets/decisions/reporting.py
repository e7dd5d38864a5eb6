"""What the reports about decisions share: the day they are as of, the champion with its reference, and their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Self

import dagster as dg
import numpy as np
import pandas as pd

from cde_domain.decisions.monitoring.drift import feature_references
from cde_domain.decisions.monitoring.recorded import (
    DamagedDayError,
    feature_matrix_of,
    last_recorded,
    read_decisions,
)
from cde_domain.decisions.monitoring.reference import Reference
from cde_domain.digests import write_json
from cde_domain.model.scoring_model import model_digest
from cde_domain.portfolio import Alarms
from cde_domain.release import Bundle, BundleError
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.evidence import EvidenceError, Pack, verify_pack
from cde_serving.ledger import LedgerEntry, LedgerError
from cde_serving.signing import SignatureError

SHADOW = "shadow"
MOSTLY = 0.5
KEPT_PAGES = 90  # HTML of some megabytes each; the JSON of every report is kept


class AsOf(dg.Config):
    """The last day that a report looks at, in ISO form; the last one that is over and recorded unless it is given."""

    as_of: str | None = None

    def day(self, portfolio: PortfolioResource) -> date:
        """
        That day.

        Raises:
            dagster.Failure: it is no date.
        """
        if self.as_of is None:
            return last_recorded(portfolio.home, portfolio.now().date())
        try:
            return date.fromisoformat(self.as_of)
        except ValueError as error:
            raise dg.Failure(f"as_of is no date like 2026-03-01: {error}", allow_retries=False) from error


@dataclass(frozen=True)
class Champion:
    """What decides: its ledger entry, bundle, evidence and reference; `missing` says why there is no reference."""

    entry: LedgerEntry
    bundle: Bundle
    pack: Pack | None
    reference: Reference | None
    missing: str | None = None

    @property
    def model(self) -> str:
        """The digest of its model, as decisions record it."""
        return model_digest(self.bundle.folder / "model")


def champion_of(releases: ReleasesResource) -> Champion | None:
    """
    The champion, None before the first promotion.

    Raises:
        dagster.Failure: the ledger or the promoted bundle is damaged.
    """
    store = releases.store()
    try:
        entry = store.ledger.current()
        if entry is None:
            return None
        bundle = store.load(entry)
    except (LedgerError, BundleError) as error:
        raise dg.Failure(f"the champion cannot be read: {error}", allow_retries=False) from error
    try:
        pack = verify_pack(store.evidence / entry.evidence, releases.trusted())
        reference = Reference.from_json(pack.report("reports/evaluation.json")["reference"])
    except (EvidenceError, SignatureError) as error:
        return Champion(entry, bundle, None, None, f"the champion's evidence cannot be read: {error}")
    except KeyError:
        return Champion(entry, bundle, pack, None, "the champion was judged before references were kept: train again")
    return Champion(entry, bundle, pack, reference)


def answered_decisions(portfolio: PortfolioResource, first: date, last: date) -> pd.DataFrame:
    """
    The decisions that applicants were given from one day to another, both included.

    Raises:
        dagster.Failure: the file of a day is damaged.
    """
    try:
        decisions = read_decisions(portfolio.home, first, last)
    except DamagedDayError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    return decisions[decisions["variant"] != SHADOW].reset_index(drop=True)


def comparable(champion: Champion, decisions: pd.DataFrame) -> pd.DataFrame:
    """
    The decisions whose features can be held against the champion's.

    Those of a bundle that had not yet all of the champion's features know nothing of the new ones, which is no drift.
    """
    model = champion.bundle.engine.model
    known_before = np.array([reference.shares[-1] < MOSTLY for reference in feature_references(model)], dtype=bool)
    without = []
    for bundle, part in decisions.groupby("bundle"):
        unknown = np.isnan(feature_matrix_of(part, champion.bundle.portfolio.features)).all(axis=0)
        if bundle != champion.bundle.digest and known_before.size and (unknown & known_before).any():
            without.append(bundle)
    return decisions[~decisions["bundle"].isin(without)].reset_index(drop=True)


@dataclass(frozen=True)
class Recent:
    """The decisions of a window of days that a report as of the last of them can hold against the champion."""

    first_day: date
    as_of: date
    decisions: pd.DataFrame
    champion: Champion | None
    least: int

    @classmethod
    def of(cls, as_of: date, alarms: Alarms, portfolio: PortfolioResource, releases: ReleasesResource) -> Self:
        """
        Those of the portfolio's window up to a day.

        Raises:
            dagster.Failure: the ledger or the promoted bundle is damaged.
        """
        first = first_day(as_of, alarms.window_days)
        decisions = answered_decisions(portfolio, first, as_of)
        champion = champion_of(releases)
        if champion is not None:
            decisions = comparable(champion, decisions)
        return cls(first, as_of, decisions, champion, alarms.min_decisions)

    @property
    def judged_by(self) -> Champion | None:
        """The champion, if there are decisions enough to judge it by."""
        return self.champion if len(self.decisions) >= self.least else None

    def report(self) -> dict[str, Any]:
        """What every report on such a window says, and why it says no more."""
        few = f"{len(self.decisions)} decisions are too few to judge, {self.least} are needed"
        return {
            "as_of": self.as_of.isoformat(),
            "first_day": self.first_day.isoformat(),
            "decisions": len(self.decisions),
            "bundle": self.champion.bundle.digest if self.champion else None,
            "judged": self.judged_by is not None,
            "why": few if self.champion else "nothing is promoted yet",
            "alarms": [],
        }


def first_day(last: date, days: int) -> date:
    """The first of so many days up to `last`."""
    return last - timedelta(days=days - 1)


def report_file(portfolio: PortfolioResource, asset: str, as_of: date, ending: str = "json") -> Path:
    """Where a report as of a day is kept."""
    return portfolio.home / "decisions" / "reports" / asset / f"{as_of}.{ending}"


def keep(portfolio: PortfolioResource, asset: str, as_of: date, report: Mapping[str, Any]) -> Path:
    """Write a report's JSON; the file is replaced as a whole."""
    path = report_file(portfolio, asset, as_of)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    write_json(unfinished, report)
    unfinished.replace(path)
    return path


def drop_old_pages(folder: Path) -> None:
    """Keep the pages of the latest days alone."""
    for page in sorted(folder.glob("*.html"))[:-KEPT_PAGES]:
        page.unlink()


def shown(report: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The metadata that every report has, and that sensors read."""
    return {
        "as_of": report["as_of"],
        "bundle": report["bundle"],
        "said": said(report),
        "decisions": report["decisions"],
        "judged": report["judged"],
        "alarm": bool(report["alarms"]),
        "alarms": dg.MetadataValue.json(list(report["alarms"])),
        "report": dg.MetadataValue.path(str(path)),
    }


def said(report: Mapping[str, Any]) -> str:
    """What a report says, in a sentence or two."""
    sentences: Sequence[str] = [one["said"] for one in report["alarms"]] or [report.get("why") or "nothing to report"]
    return "; ".join(sentences)


def finite(measures: Mapping[str, float | None]) -> dict[str, float]:
    """The measures that are numbers, to be plotted over time."""
    return {name: float(value) for name, value in measures.items() if value is not None and np.isfinite(value)}
