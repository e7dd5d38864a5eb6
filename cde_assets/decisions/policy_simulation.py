"""Policy simulation as an asset: made when somebody asks for it, never daily."""

from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from cde_assets.decisions import GROUP
from cde_assets.decisions.simulating import CHANGED, DAYS, Asked, Simulation, last_days, simulation_of
from cde_assets.decisions.simulation_page import page, tables, title
from cde_assets.metadata import OWNERS, table
from cde_domain.decisions.policy import PolicyError
from cde_domain.decisions.simulation.replaying import SimulationError
from cde_domain.digests import json_digest, write_json
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource

MOST_DAYS = 3660


class SimulationConfig(dg.Config):
    """
    What to simulate.

    `policy` is the path of a policy file, `bundle` the digest (or its first digits) of another model's bundle. With
    neither it is the portfolio's `policy.yaml` as it is on disk, on the models that decided. The period is `days` days
    that end on `last` (2026-03-31), by default on the last day that is over.
    """

    policy: str | None = None
    bundle: str | None = None
    days: int = DAYS
    last: str | None = None


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"parquet", "json"}, deps=["decisions", "outcomes"])
def policy_simulation(
    config: SimulationConfig, portfolio: PortfolioResource, releases: ReleasesResource
) -> dg.MaterializeResult:
    """
    A period's recorded decisions under another policy or model: approvals, bad loans, profit, fairness, and whose
    decision changes.

    Writes `decisions/reports/policy_simulation/<digest of what was asked>.{json,html,parquet}` in the portfolio's home;
    the Parquet file lists the decisions that change. `cde simulate-policy` says the same on a terminal.
    """
    lending, now = portfolio.load(), releases.now()
    chosen = Path(config.policy) if config.policy else None if config.bundle else lending.policy_file
    try:
        if not 1 <= config.days <= MOST_DAYS:
            raise SimulationError(f"days is {config.days}: from 1 to {MOST_DAYS} are simulated")
        first, last = last_days(now, config.days)
        if config.last:
            first, last = date.fromisoformat(config.last) - (last - first), date.fromisoformat(config.last)
        found = simulation_of(Asked(first, last, chosen, config.bundle), lending, releases.store(), now)
    except (SimulationError, PolicyError, OSError, ValueError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    return dg.MaterializeResult(metadata=_metadata(found, portfolio, _written(found, portfolio.home)))


def _written(found: Simulation, home: Path) -> Path:
    asked = {name: found.report[name] for name in ("first", "last", "policy", "bundle")}
    target = home / "decisions" / "reports" / "policy_simulation" / json_digest(asked)[:16]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target.with_suffix(".json"), found.report)
    target.with_suffix(".html").write_text(page(found.report), encoding="utf-8")
    unfinished = target.with_name(f".{target.name}.unfinished")
    pq.write_table(pa.Table.from_pandas(found.changed, CHANGED, preserve_index=False), unfinished)
    unfinished.replace(target.with_suffix(".parquet"))
    return target


def _metadata(
    found: Simulation, portfolio: PortfolioResource, target: Path
) -> dict[str, dg.MetadataValue | str | int | float]:
    report = found.report
    metadata: dict[str, dg.MetadataValue | str | int | float] = {
        "simulated": title(report),
        "first": report["first"],
        "last": report["last"],
        "decisions": report["decisions"],
        "taken_again": report["taken_again"],
        "changed": report["changed"],
        "page": portfolio.page_link(target.with_suffix(".html")),
        "report": dg.MetadataValue.path(str(target.with_suffix(".json"))),
        "changed_decisions": dg.MetadataValue.path(str(target.with_suffix(".parquet"))),
    }
    for figure in report["figures"]:
        if figure["change"] is not None and figure["name"] in ("approval_rate", "expected_bad_rate", "expected_profit"):
            metadata.setdefault(f"{figure['name']}_change", float(figure["change"]["value"]))
    for name, rows in tables(report).items():
        metadata[name.partition(",")[0].partition(":")[0].lower().replace(" ", "_")] = table(rows)
    if report["notes"]:
        metadata["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in report["notes"]))
    return metadata
