"""What the running experiment says: who decided for whom, what differs, and what follows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from cde_assets.decisions import GROUP, MONITORED
from cde_assets.decisions.reporting import AsOf
from cde_assets.experiments.truth import terms_of
from cde_assets.metadata import OWNERS, table
from cde_checks.judgement import latest_metadata
from cde_domain.decisions.experiments.report import ExperimentReport, experiment_report_of
from cde_domain.decisions.experiments.service import Counters
from cde_domain.decisions.experiments.verdict import Verdict
from cde_domain.decisions.monitoring.recorded import labelled, read_decisions, read_outcomes
from cde_domain.digests import json_bytes
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_resources.service import ServiceResource

NONE = "none"
EARLIER = 14  # reports; the service may have been away when the latest of them were made


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"html", "json"}, tags=MONITORED, deps=["decisions", "outcomes"])
def experiment_report(
    context: dg.AssetExecutionContext,
    config: AsOf,
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    service: ServiceResource,
) -> dg.MaterializeResult:
    """
    The variants of the running experiment on decisions and mature outcomes, and the verdict: ramp, hold, stop, promote.

    Its unit is the customer's first decision. Intervals hold however often one looks (confidence sequences), guardrails
    share the error that the portfolio allows, and what was found is about the last signed entry of the experiment.
    """
    now, as_of = portfolio.now(), config.day(portfolio)
    store = releases.store()
    terms = terms_of(store.experiments.entries(), store.ledger.entries())
    said: dict[str, Any] = {"as_of": str(as_of), "alarm": False, "alarms": [], "judged": False, "decisions": 0}
    if terms is None:
        return dg.MaterializeResult(metadata={**said, "verdict": NONE, "said": "no experiment runs"})
    lending = portfolio.load()
    decisions = read_decisions(portfolio.home, terms.started.date(), as_of)
    outcomes = read_outcomes(portfolio.home, terms.started.date(), as_of)
    before = latest_metadata(context.instance, context.asset_key, limit=EARLIER)
    counters = service.counters(lending.experiment.slow_after_ms)
    counted = counted_in(terms.experiment, counters, before) if counters else None
    report = experiment_report_of(
        decisions,
        labelled(decisions, outcomes, as_of, lending.outcome.matures_after_days),
        terms,
        lending,
        counters=counted,
        now=min(now, datetime.combine(as_of + timedelta(days=1), time(), UTC)),
    )
    written, pictures = _written(portfolio.home, as_of, report)
    told = alarms_of(report)
    return dg.MaterializeResult(
        metadata={
            **said,
            "alarm": bool(told),
            "alarms": told,
            "judged": report.judgement is not None,
            "decisions": report.decisions,
            **_verdict(report),
            **_numbers(report),
            **_tables(report),
            **pictures,
            **({"counters": asdict(counters), "counted": asdict(counted)} if counters and counted else {}),
            "service": _service(counters, counted),
            "page": portfolio.page_link(written["html"]),
            "path": dg.MetadataValue.path(str(written["json"])),
        }
    )


def alarms_of(report: ExperimentReport) -> list[dict[str, Any]]:
    """What people should hear of: breached guardrails, and an assignment that is not as declared."""
    judgement = report.judgement
    told = []
    if judgement is not None and judgement.verdict is Verdict.STOP:
        reasons = {breach.what: breach.said for breach in judgement.breaches} or {"over": "; ".join(judgement.reasons)}
        told += [{"what": what, "said": said, "retrains": False} for what, said in reasons.items()]
    if not report.assignment.trusted:
        told.append({"what": "assignment", "said": "; ".join(report.assignment.doubts), "retrains": False})
    return told


def counted_in(experiment: str, counters: Counters, before: Sequence[Mapping[str, Any]]) -> Counters:
    """
    What a service counted while an experiment ran: since the first report on it that asked the service.

    `before` is what earlier reports said, youngest first. The counters begin with the process, long before the
    experiment, so that the first report on it only marks where they stood.
    """
    latest = next((one for one in before if one.get("experiment") == experiment and "counters" in one), None)
    if latest is None:
        return Counters(counters.process, 0, 0, 0, 0)
    counted = counters.since(Counters(**latest["counters"]))
    return Counters(**latest["counted"]).plus(counted) if "counted" in latest else counted


def _service(counters: Counters | None, counted: Counters | None) -> str:
    if counters is None:
        return "not up, so that errors and latency were skipped"
    return "asked" if counted and counted.requests else "asked: errors and latency count from here on"


def _written(home: Path, as_of: date, report: ExperimentReport) -> tuple[dict[str, Path], dict[str, Any]]:
    """The report's files, replaced as a whole, and its pictures for the UI."""
    from cde_assets.decisions.experiment_page import drawn, page_of  # jinja2 and matplotlib

    folder = home / "decisions" / "reports" / "experiment_report"
    folder.mkdir(parents=True, exist_ok=True)
    value = {"as_of": str(as_of), **report.as_json()}
    pictures, written = drawn(value), {}
    for form, content in (("json", json_bytes(value)), ("html", page_of(value, pictures).encode())):
        written[form] = folder / f"{as_of}.{form}"
        beside = folder / f".{as_of}.{form}"
        beside.write_bytes(content)
        beside.replace(written[form])
    shown = {
        name: dg.MetadataValue.md(f"![{title}](data:image/png;base64,{image})")
        for name, (title, image) in pictures.items()
    }
    return written, shown


def _verdict(report: ExperimentReport) -> dict[str, Any]:
    judgement = report.judgement
    told = {"experiment": report.experiment, "entry": report.entry, "weight": report.weight}
    if judgement is None:
        return {**told, "verdict": NONE, "said": "only shadows take part"}
    following = {} if judgement.next_weight is None else {"next_weight": judgement.next_weight}
    return {**told, **following, "verdict": judgement.verdict.value, "said": "; ".join(judgement.reasons)}


def _numbers(report: ExperimentReport) -> dict[str, Any]:
    differences = {f"{one.name}_difference": one.difference for one in report.comparisons}
    p_values = {f"{one.name}_p": one.p_value for one in report.comparisons}
    shadows = {f"disagreement_of_{one.bundle[:8]}": one.overall.rate for one in report.shadows}
    numbers = {**differences, **p_values, **shadows, "assignment_p": report.assignment.p_value}
    return {
        "customers": report.customers,
        "challenger_customers": report.challenger_customers,
        "strayed": report.assignment.strayed,
        **{name: float(value) for name, value in numbers.items() if value is not None},
    }


def _tables(report: ExperimentReport) -> dict[str, Any]:
    tables = {
        "comparisons": [asdict(one) for one in report.comparisons],
        "groups": [asdict(one) for one in report.groups],
        "slices": [asdict(one) for one in report.slices if one.differs],
        "disagreements": [
            asdict(part) for one in report.shadows for part in (one.overall, *one.parts) if part.rate is not None
        ],
    }
    return {name: table(rows) for name, rows in tables.items() if rows}
