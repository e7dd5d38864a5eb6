"""The evidence pack: all that the challenger was judged by, signed, for anybody to verify offline."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from cde_assets.metadata import OWNERS, table
from cde_checks.judgement import REPORTS, check_results, judged
from cde_domain.digests import json_bytes, sha256_of
from cde_domain.governance.card import ModelCard
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.evidence import Enclosure, Materialisation, write_pack
from cde_serving.signing import SignatureError

GROUP = "governance"
DATA = ("loan_book", "training_set", "holdout_set")


@dg.asset(
    group_name=GROUP, owners=OWNERS, kinds={"json"}, ins={name: dg.AssetIn() for name in REPORTS}, deps=list(DATA)
)
def evidence_pack(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    **reports: dict[str, Any],
) -> dict[str, Any]:
    """The reports and check results that the challenger was judged by, in a signed folder that verifies offline."""
    name = portfolio.load().name
    judgement = judged(context.instance, name)
    if judgement.problems:
        found = "; ".join(map(str, judgement.problems))
        raise dg.Failure(f"there is no evidence that holds together: {found}", allow_retries=False)
    codes = {report["portfolio_code"] for report in reports.values() if "portfolio_code" in report}
    if len(codes) != 1:
        raise dg.Failure("the portfolio's code or policy changed between the reports", allow_retries=False)
    made_from = judgement.made_from
    try:
        key = releases.signer()
    except SignatureError as error:
        raise dg.Failure(f"the evidence cannot be signed: {error}", allow_retries=False) from error
    checks = check_results(context.instance, name, made_from)
    folder = write_pack(
        releases.store().evidence,
        _enclosures(reports, made_from),
        checks,
        portfolio=name,
        model_digest=reports["challenger_model"]["digest"],
        portfolio_code=codes.pop(),
        created_at=releases.now(),
        run=context.run_id,
        commit=_commit(),
        data={asset: str(made_from[asset].sha256) for asset in DATA},
        made_from=made_from,
        key=key,
    )
    failed = [f"{result.asset}/{result.check}" for result in checks if not result.passed]
    context.add_output_metadata(
        {
            "evidence": folder.name,
            "model_digest": reports["challenger_model"]["digest"],
            "checks": len(checks),
            "failed_checks": ", ".join(failed) or "none",
            "folder": dg.MetadataValue.path(str(folder)),
            "verify": dg.MetadataValue.md(f"`cde verify-evidence {folder}`"),
            "results": table([result.model_dump(include=_SHOWN) for result in checks]),
        }
    )
    return {"digest": folder.name, "model_digest": reports["challenger_model"]["digest"]}


_SHOWN = {"asset", "check", "blocking", "passed", "severity", "description"}


def _enclosures(reports: dict[str, dict[str, Any]], made_from: Mapping[str, Materialisation]) -> dict[str, Enclosure]:
    """The reports as files, each the very bytes that its materialisation wrote."""
    enclosures = {}
    for asset, report in reports.items():
        content = json_bytes(report)
        if sha256_of(content) != made_from[asset].sha256:
            raise dg.Failure(f"{asset} was materialised anew while it was packed", allow_retries=False)
        enclosures[f"reports/{asset}.json"] = Enclosure(content, asset, made_from[asset].run)
    card = reports["model_card"]
    forms = ModelCard(card["markdown"], card["html"], card["data"]).files()
    enclosures |= {name: Enclosure(form, "model_card", made_from["model_card"].run) for name, form in forms.items()}
    judged_in = made_from["compliance_report"].run
    for attestation in reports["compliance_report"]["reviewers"]["attestations"]:
        name = f"attestations/{attestation['rule']}.json"
        enclosures[name] = Enclosure(json_bytes(attestation), "compliance_report", judged_in)
    return enclosures


def _commit() -> str | None:
    """The commit of the source code, "-dirty" if it was changed since; None where there is no git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
