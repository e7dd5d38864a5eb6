"""Statements about the reports on decisions; a report with too few decisions says nothing against them."""

from typing import Any

import dagster as dg

from cde_domain.decisions.monitoring.live_fairness import FAIRNESS


def _holds(report: dict[str, Any], raised: list[dict[str, Any]], numbers: dict[str, Any]) -> dg.AssetCheckResult:
    said = "; ".join(one["said"] for one in raised)
    return dg.AssetCheckResult(
        passed=not raised,
        severity=dg.AssetCheckSeverity.WARN,
        description=said or report.get("why") or None,
        metadata={"as_of": report["as_of"], "decisions": report["decisions"], "judged": report["judged"], **numbers},
    )


def _is_fairness(alarm: dict[str, Any]) -> bool:
    return str(alarm["what"]).startswith(FAIRNESS)


@dg.asset_check(asset="drift_report")
def population_is_as_trained(drift_report: dict[str, Any]) -> dg.AssetCheckResult:
    """Features, scores, decisions and the share approved are as they were on the champion's loan book."""
    raised = [one for one in drift_report["alarms"] if not _is_fairness(one)]
    numbers = {"false_alarm_rate": drift_report["false_alarm_rate"], "drifted": len(drift_report["drifted_features"])}
    return _holds(drift_report, raised, numbers)


@dg.asset_check(asset="drift_report")
def live_fairness_holds(drift_report: dict[str, Any]) -> dg.AssetCheckResult:
    """No group of a gating attribute is approved less often than four fifths of another, by more than chance."""
    raised = [one for one in drift_report["alarms"] if _is_fairness(one)]
    collected = drift_report.get("attributes", [])
    return _holds(drift_report, raised, {"attributes": ", ".join(one["attribute"] for one in collected) or "none"})


@dg.asset_check(asset="estimated_performance")
def estimated_performance_holds(estimated_performance: dict[str, Any]) -> dg.AssetCheckResult:
    """What the scores promise of today's applicants is above the owner's lines and no worse than on the loan book."""
    return _holds(estimated_performance, estimated_performance["alarms"], {"cut_off": estimated_performance["cut_off"]})


@dg.asset_check(asset="live_performance")
def live_performance_holds(live_performance: dict[str, Any]) -> dg.AssetCheckResult:
    """Mature outcomes are above the owner's lines, as the scores promised, and no worse than on the loan book."""
    return _holds(live_performance, live_performance["alarms"], {"outcomes": live_performance.get("outcomes", 0)})
