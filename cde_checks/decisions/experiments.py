"""Statements about the running experiment."""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from cde_checks.judgement import latest_metadata
from cde_domain.decisions.experiments.assignment import UNTRUSTED_P
from cde_resources.portfolio import PortfolioResource

REPORT = "experiment_report"


@dg.asset_check(asset=REPORT)
def assignment_is_as_declared(
    context: dg.AssetCheckExecutionContext, portfolio: PortfolioResource
) -> dg.AssetCheckResult:
    """Every customer was decided by the variant that hash and weight say, and as many as the weight says."""
    report = _report(context, portfolio)
    if report is None:
        return dg.AssetCheckResult(passed=True, description="no experiment runs")
    found: dict[str, Any] = report["assignment"]
    p_value = found["p_value"]
    said = (
        f"{found['to_challenger']} decisions by the challenger were the champion's, {found['to_champion']} by the "
        f"champion were the challenger's, {found['moved']} customers were moved back"
    )
    if p_value is not None and p_value < UNTRUSTED_P:
        said += f", and the ratio of the variants is improbable (p {p_value:.2g})"
    return dg.AssetCheckResult(
        passed=found["as_declared"],
        severity=dg.AssetCheckSeverity.WARN,
        description=None if found["as_declared"] else said,
        metadata={
            "decisions": found["decisions"],
            "strayed": found["to_challenger"] + found["to_champion"],
            **({} if p_value is None else {"p_value": p_value}),
        },
    )


@dg.asset_check(asset=REPORT)
def guardrails_hold(context: dg.AssetCheckExecutionContext, portfolio: PortfolioResource) -> dg.AssetCheckResult:
    """The challenger breaches none of the portfolio's guardrails."""
    report = _report(context, portfolio)
    judgement = report["judgement"] if report else None
    if judgement is None:
        return dg.AssetCheckResult(passed=True, description="no challenger is in an experiment")
    breaches = [breach["said"] for breach in judgement["breaches"]]
    return dg.AssetCheckResult(
        passed=not breaches,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(breaches) or None,
        metadata={"breaches": len(breaches), "verdict": judgement["verdict"]},
    )


def _report(context: dg.AssetCheckExecutionContext, portfolio: PortfolioResource) -> dict[str, Any] | None:
    """The latest report; None where no experiment ran then."""
    told = latest_metadata(context.instance, dg.AssetKey([portfolio.load().name, REPORT]), limit=1)
    path = told[0].get("path") if told else None
    report: dict[str, Any] | None = json.loads(Path(str(path)).read_text(encoding="utf-8")) if path else None
    return report
