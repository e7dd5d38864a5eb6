"""Stage release: the champion, and the bento that serves it."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

import cde_domain
from cde_assets.metadata import OWNERS, table
from cde_checks.gate import RECOMPARE, examine
from cde_checks.judgement import EVIDENCE, REPORTS
from cde_checks.refusal import Refusal
from cde_domain.governance.card import standing
from cde_domain.governance.fairness import Verdict
from cde_domain.release import write_bundle
from cde_resources.bentos import BentoStore
from cde_resources.mlflow import MlflowResource
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.ledger import LedgerConflictError
from cde_serving.releases import BUNDLES, LEDGER, PUBLIC_KEY

GROUP = "release"


class PromotionConfig(dg.Config):
    """With `bundle`, only the challenger with this bundle is promoted, and another one is refused."""

    bundle: str | None = None


def refuse(found: list[Refusal], what: str = "promotion refused") -> dg.Failure:
    """The failure that tells why the gate said no."""
    rows = [{"subject": refusal.subject, "reason": refusal.reason, "remedy": refusal.remedy} for refusal in found]
    lines = "\n".join(f"  - {refusal}" for refusal in found)
    return dg.Failure(f"{what}:\n{lines}", {"refusals": table(rows)}, allow_retries=False)


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"mlflow"}, deps=[*REPORTS, EVIDENCE])
def champion_model(
    context: AssetExecutionContext,
    config: PromotionConfig,
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    registry: MlflowResource,
) -> dict[str, Any]:
    """
    The challenger, promoted: its bundle is written, the signed ledger names it, and MLflow's alias follows.

    Refuses unless every blocking check passed on exactly the materialisations that the challenger and its reports were
    made from, the signed evidence pack says the same about the same model, and a named person approved it where the
    portfolio wants that; whatever else ran since and however this asset was started. What it says of the model it reads
    from the pack, after verifying it.
    """
    lending = portfolio.load()
    case = examine(context.instance, portfolio, releases)
    if case.refusals or case.pack is None:
        raise refuse(case.refusals)
    if config.bundle not in (None, case.bundle):
        raise refuse([_another_challenger(config.bundle, case.bundle)])
    pack, model_digest = case.pack, case.pack.manifest.model_digest
    reports = {name: pack.report(f"reports/{name}.json") for name in REPORTS}
    store = releases.store()
    bundle = write_bundle(store.bundles, portfolio.reference, lending, portfolio.served_folder(model_digest))
    if bundle.name != case.bundle:
        raise refuse([Refusal("bundle", "its files were changed at this moment", "Materialise champion_model again")])
    current, version = store.ledger.current(), reports["challenger_model"]["mlflow_version"]
    if current is None or current.bundle != bundle.name:
        approval = {"approved_by": case.approval.name, "approver_key": case.approval.key} if case.approval else {}
        reached = {"operation_log": case.operation.model_dump()} if case.operation else {}
        try:
            current = store.ledger.append(
                action="promote",
                portfolio=lending.name,
                bundle=bundle.name,
                expected_sequence=case.compared_with,
                evidence=pack.digest,
                by=f"dagster:{context.run_id}",
                key=releases.signer(),
                notes=insufficient_data(reports["fairness_report"]),
                details={
                    "model_digest": model_digest,
                    "mlflow_version": version,
                    "authority": lending.promotion,
                    **standing(reports["compliance_report"]["rules"]),
                    **approval,
                    **reached,
                },
            )
        except LedgerConflictError as error:
            raise refuse([Refusal("ledger", str(error), RECOMPARE)]) from error
    registry.set_alias("champion", version)
    context.add_output_metadata(
        {
            "bundle": bundle.name,
            "model_digest": model_digest,
            "evidence": current.evidence,
            "ledger_entry": current.sequence,
            "insufficient_data": ", ".join(current.notes) or "none",
            "open_rules": ", ".join(current.details.get("open", ())) or "none",
            "auc": reports["evaluation"]["holdout"]["auc"],
            "card": dg.MetadataValue.md(reports["model_card"]["markdown"]),
        }
    )
    return {
        "bundle": bundle.name,
        "model_digest": model_digest,
        "evidence": current.evidence,
        "ledger_entry": current.sequence,
    }


def _another_challenger(asked: str | None, latest: str | None) -> Refusal:
    return Refusal(
        "challenger",
        f"{str(asked)[:12]} was to be promoted, but the latest challenger is {str(latest)[:12]}",
        "Stop the experiment that it won, and let the latest challenger take part",
    )


def insufficient_data(fairness_report: dict[str, Any]) -> list[str]:
    """The groups, and attributes of a single group, without a fairness verdict, as notes for the ledger."""
    single = [
        f"insufficient_data: {result['attribute']} has a single group"
        for result in fairness_report["attributes"]
        if len(result["groups"]) < 2
    ]
    return single + [
        f"insufficient_data: {group['attribute']}={group['group']} (n={group['rows']})"
        for result in fairness_report["attributes"]
        for group in result["groups"]
        if group["verdict"] in (Verdict.INSUFFICIENT_DATA, Verdict.NOT_COMPUTED)
    ]


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    kinds={"bentoml"},
    # A person may promote champion_model alone, and `cde serve` would go on with the bento of the one before.
    automation_condition=dg.AutomationCondition.eager().with_label("the champion has changed"),
)
def scoring_bento(
    context: AssetExecutionContext,
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    bentos: BentoStore,
    champion_model: dict[str, Any],
) -> dict[str, Any]:
    """The BentoML bundle of the champion: service code, slim requirements and the promoted release, nothing else."""
    source = Path(cde_domain.__file__).parents[1]
    store = releases.store()
    digest = champion_model["bundle"]
    with tempfile.TemporaryDirectory() as folder:
        context_folder = Path(folder)
        for package in ("cde_domain", "cde_serving"):
            shutil.copytree(source / package, context_folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("bentofile.yaml", "requirements-bento.lock"):
            shutil.copy(source / name, context_folder / name)
        release = context_folder / "release"
        shutil.copytree(store.bundles / digest, release / BUNDLES / digest)
        shutil.copy(store.ledger.path, release / LEDGER)
        shutil.copy(store.ledger.public_key, release / PUBLIC_KEY)
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
