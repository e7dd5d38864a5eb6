"""Stage release: the champion, and the bento that serves it."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

import cde_domain
from cde_assets.metadata import OWNERS, table
from cde_checks.gate import Refusal, refusals
from cde_domain.governance.fairness import Verdict
from cde_domain.release import write_bundle
from cde_resources.bentos import BentoStore
from cde_resources.mlflow import MlflowResource
from cde_resources.portfolio import PortfolioResource
from cde_serving.ledger import LedgerConflictError
from cde_serving.releases import BUNDLES, LEDGER, ReleaseStore

GROUP = "release"


def _refuse(found: list[Refusal]) -> dg.Failure:
    rows = [{"subject": refusal.subject, "reason": refusal.reason, "remedy": refusal.remedy} for refusal in found]
    lines = "\n".join(f"  - {refusal}" for refusal in found)
    return dg.Failure(f"promotion refused:\n{lines}", {"refusals": table(rows)}, allow_retries=False)


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"mlflow"}, deps=["explanation_report", "latency_report"])
def champion_model(
    context: AssetExecutionContext,
    portfolio: PortfolioResource,
    registry: MlflowResource,
    challenger_model: dict[str, Any],
    evaluation: dict[str, Any],
    fairness_report: dict[str, Any],
    model_card: dict[str, Any],
) -> dict[str, Any]:
    """
    The challenger, promoted: its bundle is written, the ledger names it, and MLflow's alias follows.

    Refuses unless every blocking check passed on exactly the materialisations that the challenger and its reports were
    made from, whatever else ran since and however this asset was started.
    """
    lending = portfolio.load()
    found = refusals(context.instance, lending.name)
    if lending.promotion != "automatic":
        found.append(
            Refusal("promotion", f"{lending.name} is not promoted automatically", "A named person must approve it")
        )
    if found:
        raise _refuse(found)
    served = portfolio.models / challenger_model["digest"] / "served"
    portfolio.scoring_model(challenger_model["digest"])  # verified here, so that only checked files are released
    releases = ReleaseStore(portfolio.home)
    bundle = write_bundle(releases.bundles, portfolio.reference, lending, served)
    current = releases.ledger.current()
    compared_with = evaluation["champion"]["bundle"] if evaluation["champion"] else None
    if current is None or current.bundle != bundle.name:
        try:
            current = releases.ledger.append(
                action="promote",
                portfolio=lending.name,
                bundle=bundle.name,
                expected_previous=compared_with,
                by=f"dagster:{context.run_id}",
                notes=insufficient_data(fairness_report),
                details={
                    "model_digest": challenger_model["digest"],
                    "mlflow_version": challenger_model["mlflow_version"],
                },
            )
        except LedgerConflictError as error:
            remedy = "Run train_and_release again, so that it is compared with today's champion"
            raise _refuse([Refusal("ledger", str(error), remedy)]) from error
    registry.set_alias("champion", challenger_model["mlflow_version"])
    context.add_output_metadata(
        {
            "bundle": bundle.name,
            "model_digest": challenger_model["digest"],
            "ledger_entry": current.sequence,
            "insufficient_data": ", ".join(current.notes) or "none",
            "auc": evaluation["holdout"]["auc"],
            "card": dg.MetadataValue.md(model_card["markdown"]),
        }
    )
    return {"bundle": bundle.name, "model_digest": challenger_model["digest"], "ledger_entry": current.sequence}


def insufficient_data(fairness_report: dict[str, Any]) -> list[str]:
    """The groups on which no fairness verdict was possible, as notes for the ledger."""
    return [
        f"insufficient_data: {group['attribute']}={group['group']} (n={group['rows']})"
        for result in fairness_report["attributes"]
        for group in result["groups"]
        if group["verdict"] in (Verdict.INSUFFICIENT_DATA, Verdict.NOT_COMPUTED)
    ]


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"bentoml"})
def scoring_bento(
    context: AssetExecutionContext,
    portfolio: PortfolioResource,
    bentos: BentoStore,
    champion_model: dict[str, Any],
) -> dict[str, Any]:
    """The BentoML bundle of the champion: service code, slim requirements and the promoted release, nothing else."""
    source = Path(cde_domain.__file__).parents[1]
    releases = ReleaseStore(portfolio.home)
    digest = champion_model["bundle"]
    with tempfile.TemporaryDirectory() as folder:
        context_folder = Path(folder)
        for package in ("cde_domain", "cde_serving"):
            shutil.copytree(source / package, context_folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("bentofile.yaml", "requirements-bento.lock"):
            shutil.copy(source / name, context_folder / name)
        shutil.copytree(releases.bundles / digest, context_folder / "release" / BUNDLES / digest)
        shutil.copy(releases.folder / LEDGER, context_folder / "release" / LEDGER)
        tag = bentos.build(context_folder, name=f"credit_decision_{portfolio.load().name}", version=digest[:12])
    path = bentos.path(tag)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    context.add_output_metadata(
        {
            "tag": tag,
            "bundle": digest,
            "path": dg.MetadataValue.path(str(path)),
            "megabytes": size / 1e6,
            "serve": dg.MetadataValue.md(f"`BENTOML_HOME={bentos.home} bentoml serve {tag}`"),
        }
    )
    return {"tag": tag, "bundle": digest, "path": str(path)}
