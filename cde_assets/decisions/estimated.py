"""The report on what the champion's scores promise of today's applicants, before any outcome is known."""

from datetime import date
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_assets.decisions import GROUP, MONITORED
from cde_assets.decisions.reporting import AsOf, Recent, finite, keep, shown
from cde_assets.metadata import OWNERS, picture, table
from cde_domain.decisions.monitoring.estimated import (
    MEASURES,
    Estimate,
    expected_performance,
    line_alarms,
    reference_alarms,
)
from cde_domain.decisions.monitoring.raised import as_json
from cde_domain.decisions.monitoring.recorded import feature_matrix_of
from cde_domain.decisions.monitoring.reference import Reference
from cde_domain.decisions.policy import Outcome
from cde_domain.portfolio import Alarms
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource

Array = NDArray[np.float64]

OF = "as estimated"


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"json"}, tags=MONITORED, deps=["decisions"])
def estimated_performance(
    context: dg.AssetExecutionContext, config: AsOf, portfolio: PortfolioResource, releases: ReleasesResource
) -> dict[str, Any]:
    """
    Accuracy, AUC, Brier score and bad rate that the champion's scores lead to expect of the last weeks' applicants.

    The scores are those that the champion gives, whoever decided. It assumes that repayment follows from the features
    as it did in training: that applicants have changed is seen here, that borrowers have is not.
    """
    alarms = portfolio.load().alarms
    recent = Recent.of(config.day(portfolio), alarms, portfolio, releases)
    report = recent.report() | {"cut_off": alarms.accuracy_cut_off}
    champion, decisions, as_of = recent.judged_by, recent.decisions, recent.as_of
    if champion is None:
        context.add_output_metadata(shown(report, keep(portfolio, "estimated_performance", as_of, report)))
        return report
    engine = champion.bundle.engine
    scores = engine.model.scores(feature_matrix_of(decisions, engine.portfolio.features))
    report |= {"why": champion.missing, **_estimated(decisions, scores, champion.reference, alarms)}
    path = keep(portfolio, "estimated_performance", as_of, report)
    context.add_output_metadata({**shown(report, path), **_metadata(report, alarms)})
    return report


def _estimated(decisions: pd.DataFrame, scores: Array, reference: Reference | None, alarms: Alarms) -> dict[str, Any]:
    def of(rows: NDArray[Any]) -> dict[str, Estimate]:
        calibration = reference.calibration if reference else None
        return expected_performance(scores[rows], cut_off=alarms.accuracy_cut_off, calibration=calibration)

    whole = of(np.arange(len(scores)))
    approved = np.flatnonzero((decisions["decision"] == Outcome.APPROVED.value).to_numpy())
    raised = line_alarms(whole, alarms, OF, "estimated")
    if reference is not None:
        raised += reference_alarms(whole, reference, alarms, OF, "estimated")
    chunks = []
    for rows in chunks_of(decisions["applied_at"].dt.date.to_numpy(), alarms.min_decisions):
        days = decisions["applied_at"].iloc[rows].dt.date
        measured = {name: one.as_json() for name, one in of(rows).items()}
        chunks.append({"first_day": str(days.min()), "last_day": str(days.max()), "decisions": len(rows), **measured})
    return {
        "estimates": {name: one.as_json() for name, one in whole.items()},
        "approved": len(approved),
        "bad_rate_of_approved": of(approved)["bad_rate"].as_json() if len(approved) else None,
        "chunks": chunks,
        "alarms": as_json(raised),
    }


def chunks_of(days: NDArray[np.object_], least: int) -> list[NDArray[np.intp]]:
    """The rows of consecutive whole days, at least so many rows each; what is left over belongs to the last chunk."""
    chunks: list[list[date]] = [[]]
    rows = 0
    for day in sorted(set(days.tolist())):
        if rows >= least:
            chunks.append([])
            rows = 0
        chunks[-1].append(day)
        rows += int((days == day).sum())
    if len(chunks) > 1 and rows < least:
        chunks[-2:] = [chunks[-2] + chunks[-1]]
    return [np.flatnonzero([day in chunk for day in days.tolist()]) for chunk in chunks if chunk]


def _metadata(report: dict[str, Any], alarms: Alarms) -> dict[str, Any]:
    from cde_assets.decisions import monitoring_pictures

    estimates, chunks = report["estimates"], report["chunks"]
    ends = {
        f"{name}_{end}": estimates[name]["interval"][place]
        for name in MEASURES
        if estimates[name]["interval"]
        for place, end in enumerate(("low", "high"))
    }
    rows = [
        {"first_day": chunk["first_day"], "last_day": chunk["last_day"], "decisions": chunk["decisions"]}
        | {column: value for name in MEASURES for column, value in _columns(name, chunk[name]).items()}
        for chunk in chunks
    ]
    lines = {"accuracy": alarms.min_accuracy, "auc": alarms.min_auc}
    return {
        **finite({name: estimates[name]["value"] for name in MEASURES}),
        **finite(ends),
        **finite({"bad_rate_of_approved": (report["bad_rate_of_approved"] or {}).get("value")}),
        "cut_off": report["cut_off"],
        "chunks": table(rows),
        "estimates": picture(monitoring_pictures.estimates(chunks, lines), "estimated performance"),
    }


def _columns(name: str, estimate: dict[str, Any]) -> dict[str, float | None]:
    low, high = estimate["interval"] or (None, None)
    return {name: estimate["value"], f"{name}_low": low, f"{name}_high": high}
