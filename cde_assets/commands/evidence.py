"""`cde why-not` and `verify-evidence`: what a challenger is judged by."""

from pathlib import Path
from typing import Annotated

import typer

from cde_assets.commands.common import PortfolioArgument, choose, told_no

app = typer.Typer()


@app.command("why-not")
def why_not(portfolio: PortfolioArgument = None) -> None:
    """Explain why the latest challenger cannot be promoted: which statement, which number, what to do."""
    settings = choose(portfolio)
    from cde_assets.demo import open_instance
    from cde_checks.gate import examine
    from cde_checks.refusal import explained, unsettled
    from cde_resources.portfolio import PortfolioResource
    from cde_resources.releases import ReleasesResource

    name = settings.portfolio_name()
    portfolio_resource = PortfolioResource(reference=settings.portfolio, state=str(settings.home))
    with open_instance(settings) as instance:
        case = examine(instance, portfolio_resource, ReleasesResource.of(settings, name))
    if found := case.refusals:
        raise told_no(f"The latest challenger of {name} cannot be promoted:\n{explained(found)}")
    typer.echo(f"The latest challenger of {name} passed every check; nothing stands in the way of its promotion.")
    if case.pack:
        typer.echo(unsettled(case.pack.report("reports/compliance_report.json")["rules"]))


@app.command("verify-evidence")
def verify_evidence(
    folder: Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="The evidence pack.")],
    key: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The public key to trust; that of the settings by default."),
    ] = None,
) -> None:
    """Verify an evidence pack offline: its signature, and that no file was changed, added or removed."""
    from cde_serving.evidence import EvidenceError, verify_pack
    from cde_serving.settings import Settings
    from cde_serving.signing import SignatureError, TrustedKeys

    try:
        trusted = TrustedKeys.read(key or Settings().verify_key_file())
    except SignatureError as error:
        raise typer.BadParameter(str(error), param_hint="--key") from error
    try:
        pack = verify_pack(folder, trusted)
    except EvidenceError as error:
        raise told_no(f"{folder}: NOT verified: {error}") from error
    manifest = pack.manifest
    failed = [f"{result.asset}/{result.check}" for result in pack.checks if not result.passed]
    typer.echo(f"{folder}: verified")
    typer.echo(f"  evidence {pack.digest}")
    typer.echo(f"  model    {manifest.model_digest} of {manifest.portfolio}, commit {manifest.commit or 'unknown'}")
    typer.echo(f"  made     {manifest.created_at:%Y-%m-%d %H:%M} UTC in run {manifest.run}")
    typer.echo(f"  holds    {len(manifest.files)} files, {len(pack.checks)} check results")
    typer.echo(f"  failed   {', '.join(failed) or 'none'}")
