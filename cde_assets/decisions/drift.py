"""The report on drift: who applies, how they are scored, what is decided, and for which groups."""

from datetime import date
from typing import Any

import dagster as dg
import pandas as pd

from cde_assets.decisions import GROUP, MONITORED
from cde_assets.decisions.reporting import AsOf, Champion, Recent, keep, report_file, shown
from cde_assets.metadata import OWNERS, picture, table
from cde_domain.decisions.monitoring.drift import Shift, approval_alarms, drift_alarms, shifts, watched
from cde_domain.decisions.monitoring.live_fairness import fairness_alarms, group_rows, live_fairness, unknown_shares
from cde_domain.decisions.monitoring.raised import as_json
from cde_domain.decisions.monitoring.recorded import feature_matrix_of
from cde_domain.decisions.policy import Outcome
from cde_domain.intervals import wilson
from cde_domain.portfolio import Alarms, Portfolio
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"evidently"}, tags=MONITORED, deps=["decisions"])
def drift_report(
    context: dg.AssetExecutionContext, config: AsOf, portfolio: PortfolioResource, releases: ReleasesResource
) -> dict[str, Any]:
    """
    Whether features, scores and decisions of the last weeks are still those of the champion's training population.

    An alarm means that a stability index is beyond what chance does to as many decisions, as the portfolio's alarms
    say. Approval rates and, where protected attributes are collected, adverse impact are of the answered decisions.
    Evidently's page of the same is linked; a page that cannot be written is a warning, and the report stands.
    """
    lending = portfolio.load()
    recent = Recent.of(config.day(portfolio), lending.alarms, portfolio, releases)
    report = recent.report() | {"false_alarm_rate": lending.alarms.false_alarm_rate, "drifted_features": []}
    champion, decisions, as_of = recent.judged_by, recent.decisions, recent.as_of
    if champion is None:
        path = keep(portfolio, "drift_report", as_of, report)
        context.add_output_metadata({**shown(report, path), "drifted_features": dg.MetadataValue.json([])})
        return report
    found = _shifts(champion, decisions, lending.alarms)
    report |= _measured(lending, champion, decisions, found)
    path = keep(portfolio, "drift_report", as_of, report)
    context.add_output_metadata(
        {
            **_page(context, portfolio, champion, decisions, found, as_of),
            **shown(report, path),
            "drifted_features": dg.MetadataValue.json(report["drifted_features"]),
            **_metadata(report, decisions, found),
        }
    )
    return report


def _shifts(champion: Champion, decisions: pd.DataFrame, alarms: Alarms) -> list[Shift]:
    engine = champion.bundle.engine
    matrix = feature_matrix_of(decisions, engine.portfolio.features)
    own = decisions.loc[decisions["bundle"] == champion.bundle.digest, "decision"].to_numpy(dtype=object)
    answered = own if len(own) >= alarms.min_decisions else None
    return shifts(watched(engine.model, matrix, champion.reference, answered), alarms)


def _measured(lending: Portfolio, champion: Champion, decisions: pd.DataFrame, found: list[Shift]) -> dict[str, Any]:
    alarms = lending.alarms
    own = decisions[decisions["bundle"] == champion.bundle.digest]
    enough = len(own) >= alarms.min_decisions
    judged = own if enough else decisions  # a new champion has not decided much yet
    approved = int((judged["decision"] == Outcome.APPROVED.value).sum())
    least, rate = alarms.min_adverse_impact_ratio, alarms.false_alarm_rate
    groups = live_fairness(lending, decisions, min_ratio=least, false_alarm_rate=rate)
    raised = [
        *drift_alarms(found),
        *approval_alarms(approved, len(judged), champion.reference if enough else None, alarms),
        *fairness_alarms(groups, least),
    ]
    return {
        "why": champion.missing,
        "shifts": [shift.as_json() for shift in found],
        "drifted_features": [shift.name for shift in found if shift.drifted and shift.of == "feature"],
        "approval": {"rows": len(judged), "approved": approved, "interval": list(wilson(approved, len(judged)))},
        "reference_approval_rate": champion.reference.approved / champion.reference.rows
        if champion.reference
        else None,
        "by_variant": _by_variant(decisions),
        "min_ratio": least,
        "attributes": [result.as_json() for result in groups],
        "groups": group_rows(groups),
        "unknown_groups": unknown_shares(groups, len(decisions)),
        "alarms": as_json(raised),
    }


def _by_variant(decisions: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for (variant, bundle), part in decisions.groupby(["variant", "bundle"], sort=True):
        approved = int((part["decision"] == Outcome.APPROVED.value).sum())
        rows.append(
            {
                "variant": variant,
                "bundle": str(bundle)[:12],
                "decisions": len(part),
                "approval_rate": approved / len(part),
                "interval": list(wilson(approved, len(part))),
                "review_rate": float((part["decision"] == Outcome.MANUAL_REVIEW.value).mean()),
            }
        )
    return rows


def _metadata(report: dict[str, Any], decisions: pd.DataFrame, found: list[Shift]) -> dict[str, Any]:
    from cde_assets import pictures
    from cde_assets.decisions import monitoring_pictures

    by_name = {shift.name: shift for shift in found}
    ratios = [group["impact_ratio"] for group in report["groups"] if group["impact_ratio"] is not None]
    approval = report["approval"]
    metadata: dict[str, Any] = {
        "drifted": len([shift for shift in found if shift.drifted]),
        "largest_psi": max((shift.psi for shift in found if shift.of == "feature"), default=0.0),
        "approval_rate": approval["approved"] / approval["rows"],
        "shifts": table([shift.as_json() for shift in sorted(found, key=lambda one: -one.psi / one.limit)]),
        "approvals": table(report["by_variant"]),
        "stability": picture(monitoring_pictures.shifts(report["shifts"]), "population stability"),
        "approvals_by_day": picture(monitoring_pictures.approvals(*_days(decisions)), "approvals by day"),
    }
    for name in ("score", "decision"):
        if name in by_name:
            metadata[f"{name}_psi"] = by_name[name].psi
    if report["groups"]:
        metadata["groups"] = table(report["groups"])
    if ratios:
        metadata["smallest_impact_ratio"] = float(min(ratios))
        metadata["impact"] = picture(pictures.impact_ratios(report["groups"], report["min_ratio"]), "impact ratios")
    return metadata


def _days(decisions: pd.DataFrame) -> tuple[list[date], list[int], list[int]]:
    approved = decisions["decision"] == Outcome.APPROVED.value
    by_day = approved.groupby(decisions["applied_at"].dt.date).agg(["sum", "size"])
    return list(by_day.index), by_day["sum"].astype(int).tolist(), by_day["size"].astype(int).tolist()


def _page(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    champion: Champion,
    decisions: pd.DataFrame,
    found: list[Shift],
    as_of: date,
) -> dict[str, Any]:
    from cde_assets.decisions.evidently_page import write_page

    path = report_file(portfolio, "drift_report", as_of, "html")
    try:
        empty = write_page(path, portfolio, champion, decisions, found)
    except Exception as error:  # the page is for reading: without it the report still stands and still alarms
        context.log.warning(f"Evidently's page could not be written ({type(error).__name__})")
        return {"page": f"not written ({type(error).__name__})"}
    without = {"known_or_unknown_on_page": dg.MetadataValue.json(empty)} if empty else {}
    return {"page": portfolio.page_link(path), **without}
