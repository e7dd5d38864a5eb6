"""`cde rollback`: an earlier champion answers again."""

from typing import TYPE_CHECKING, Annotated

import typer

from cde_assets.commands.common import PortfolioArgument, choose, os_user, told_no

if TYPE_CHECKING:
    from cde_serving.settings import Settings

app = typer.Typer()


@app.command()
def rollback(
    portfolio: PortfolioArgument = None,
    to: Annotated[
        str | None, typer.Option(help="The digest of an earlier champion's bundle; by default the one before.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")] = "",
) -> None:
    """Make an earlier champion answer again: one ledger entry, which a running service follows within two seconds."""
    settings = choose(portfolio)
    from cde_domain.release import BundleError
    from cde_resources.releases import ReleasesResource
    from cde_serving.ledger import LedgerConflictError, LedgerError
    from cde_serving.releases import RollbackError
    from cde_serving.signing import SignatureError

    name = settings.portfolio_name()
    releases = ReleasesResource.of(settings, name)
    try:
        entry = releases.store().roll_back(to, key=releases.signer(), by=os_user(), reason=reason)
    except (RollbackError, BundleError, LedgerError, LedgerConflictError, SignatureError) as error:
        raise told_no(f"Not rolled back: {error}") from error
    typer.echo(f"{name} is answered by {entry.bundle[:12]} again, no longer by {str(entry.previous)[:12]}")
    typer.echo(f"(entry {entry.sequence} of its ledger)")
    if version := entry.details.get("mlflow_version"):
        _follow_in_mlflow(settings, name, str(version))


def _follow_in_mlflow(settings: "Settings", name: str, version: str) -> None:
    from mlflow.exceptions import MlflowException

    from cde_resources.mlflow import MlflowResource

    try:
        MlflowResource.of(settings, name).set_alias("champion", version)
    except MlflowException as error:  # the ledger decides what is served, the alias only shows it
        typer.echo(f"MLflow's alias champion could not follow to version {version}: {error}", err=True)
    else:
        typer.echo(f"MLflow's alias champion follows to version {version}.")
