"""The report on how the champion did, once outcomes are known."""

from datetime import date, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_assets.decisions import GROUP, MONITORED
from cde_assets.decisions.reporting import (
    AsOf,
    Champion,
    answered_decisions,
    champion_of,
    finite,
    first_day,
    keep,
    shown,
)
from cde_assets.metadata import OWNERS, picture, table
from cde_domain.decisions.monitoring.live import live_performance as measured
from cde_domain.decisions.monitoring.recorded import labelled, read_outcomes
from cde_resources.mlflow import MlflowResource
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource

Array = NDArray[np.float64]

MEASURES = ("auc", "gini", "ks", "brier", "log_loss", "calibration_error", "calibration_slope")


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"mlflow"}, tags=MONITORED, deps=["decisions", "outcomes"])
def live_performance(
    context: dg.AssetExecutionContext,
    config: AsOf,
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    registry: MlflowResource,
) -> dict[str, Any]:
    """
    How the champion's own scores did by the youngest mature outcomes: accuracy, AUC, Brier, calibration and bands.

    Only granted loans have an outcome. Their figures are compared with what the scores promised of these very loans,
    and over all applicants with the scores' word for whoever has none. The measures are logged to the champion's
    MLflow run, by the day.
    """
    lending = portfolio.load()
    alarms, as_of = lending.alarms, config.day(portfolio)
    days = lending.outcome.matures_after_days
    last = as_of - timedelta(days=days or 0)
    first = first_day(last, alarms.outcome_window_days)
    champion = champion_of(releases)
    report: dict[str, Any] = {
        "as_of": as_of.isoformat(),
        "first_day": first.isoformat(),
        "last_day": last.isoformat(),
        "matures_after_days": days,
        "bundle": champion.bundle.digest if champion else None,
        "decisions": 0,
        "judged": False,
        "alarms": [],
        "why": "nothing is promoted yet",
    }
    if champion is not None:
        scores, repaid = _mature(portfolio, champion, first, last, as_of)
        found = measured(scores, repaid, champion.reference, alarms)
        few = f"{found['outcomes']} mature outcomes of the champion's decisions are too few to judge"
        few += f", {alarms.min_outcomes} are needed"
        report |= {"decisions": len(scores), **found, "why": champion.missing if found["judged"] else few}
    path = keep(portfolio, "live_performance", as_of, report)
    if report["judged"] and champion is not None:
        logged = _log(context, registry, champion, as_of, report)
        context.add_output_metadata({**shown(report, path), **_metadata(report), **logged})
    else:
        context.add_output_metadata(shown(report, path))
    return report


def _mature(
    portfolio: PortfolioResource, champion: Champion, first: date, last: date, as_of: date
) -> tuple[Array, Array]:
    """Scores of the champion's mature decisions, and whether their loans were repaid: 1, 0, or NaN without outcome."""
    decisions = answered_decisions(portfolio, first, last)
    own = decisions[(decisions["model"] == champion.model) & decisions["score"].notna()]
    days = portfolio.load().outcome.matures_after_days
    known = labelled(own, read_outcomes(portfolio.home, first, last), as_of, days).set_index("decision_id")["repaid"]
    repaid = own["decision_id"].map(known.astype(np.float64))
    return own["score"].to_numpy(dtype=np.float64), pd.to_numeric(repaid).to_numpy(dtype=np.float64)


def _measures(report: dict[str, Any]) -> dict[str, float]:
    performance, loans = report["performance"], report["loans"]
    return finite(
        {name: performance[name] for name in MEASURES}
        | {name: loans[name]["value"] for name in ("accuracy", "bad_rate")}
        | {"expected_bad_rate": report["expected"]["bad_rate"]["value"]}
        | {f"{name}_of_applicants": report["applicants"][name]["value"] for name in ("accuracy", "auc")}
        | {f"{name}_{end}": _end(loans[name], end) for name in loans for end in ("low", "high")}
    )


def _end(estimate: dict[str, Any], end: str) -> float | None:
    return estimate["interval"][0 if end == "low" else 1] if estimate["interval"] else None


def _log(
    context: dg.AssetExecutionContext,
    registry: MlflowResource,
    champion: Champion,
    as_of: date,
    report: dict[str, Any],
) -> dict[str, Any]:
    if champion.pack is None:
        return {}
    run_id = champion.pack.report("reports/challenger_model.json")["mlflow_run_id"]
    try:
        registry.log_day(run_id, as_of, {f"live_{name}": value for name, value in _measures(report).items()})
        return {"mlflow_run": dg.MetadataValue.url(registry.run_url(run_id))}
    except Exception as error:  # MLflow is for reading: without it the report still stands and still alarms
        context.log.warning(f"the measures could not be logged to MLflow ({type(error).__name__})")
        return {"mlflow_run": f"not logged ({type(error).__name__})"}


def _metadata(report: dict[str, Any]) -> dict[str, Any]:
    from cde_assets import pictures
    from cde_assets.decisions import monitoring_pictures

    rows = [
        {
            "measure": name,
            **{
                f"{of}{end}": report[of][name]["value"] if not end else _end(report[of][name], end[1:])
                for of in ("loans", "expected", "applicants")
                for end in ("", "_low", "_high")
            },
        }
        for name in report["loans"]
    ]
    return {
        **_measures(report),
        "outcomes": report["outcomes"],
        "cut_off": report["cut_off"],
        "measures": table(rows),
        "bands": table(report["bands"]),
        "bad_rates": picture(monitoring_pictures.bad_rates(report["bands"]), "loans by score"),
        "calibration": picture(pictures.calibration_of(report["calibration"]), "calibration"),
    }
