"""`cde keys`: API keys are created, revoked and listed."""

import asyncio
from datetime import timedelta
from typing import Annotated

import typer

from cde_assets.commands.common import PortfolioOption, choose, told_no

app = typer.Typer(name="keys", no_args_is_help=True, help="API keys: who may ask the service for what.")

LINE = 200  # columns that a key may take


@app.command()
def create(
    scope: Annotated[list[str], typer.Option(help="score, read, review or admin; give it once for each.")],
    tenant: Annotated[str, typer.Option(help="Whose decisions it makes and sees; no other tenant does.")],
    rate: Annotated[str | None, typer.Option(help="How often it may ask, like 100/second.")] = None,
    name: Annotated[str | None, typer.Option(help="What it is for, like 'core banking'.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="How long it counts; for good by default.")] = None,
    portfolio: PortfolioOption = None,
) -> None:
    """Create an API key and print it, this once; the decision log keeps a keyed hash and who created it."""
    settings = choose(portfolio)
    from cde_assets.api_keys import key_issuer
    from cde_serving.access.keys import ApiKeyError
    from cde_serving.decision_log import LogUnavailableError

    lifetime = timedelta(days=days) if days else None
    try:
        with key_issuer(settings) as issuer:
            key, token = asyncio.run(
                issuer.create(tenant=tenant, scopes=scope, rate=rate, name=name, lifetime=lifetime)
            )
    except ApiKeyError as error:
        typer.echo(f"Not created: {error}", err=True)
        raise typer.Exit(2) from error
    except LogUnavailableError as error:
        raise told_no(f"Not created: {error}", err=True) from error
    until = f" until {key.expires_at[:10]}" if key.expires_at else ""
    may = key.granted.replace(" ", ", ")
    service = settings.portfolio_name()
    typer.echo(f"Key {key.key_id} of the tenant {tenant} may {may} at the service of {service}{until}.", err=True)
    typer.echo("It is shown this once; it counts within a second:", err=True)
    typer.echo(token)  # alone on standard output, so that a shell can keep it in a variable


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEYID", help="The key's id, its middle part.")],
    portfolio: PortfolioOption = None,
) -> None:
    """Revoke an API key: a running service lets it in for a second more at most."""
    settings = choose(portfolio)
    from cde_assets.api_keys import key_issuer
    from cde_serving.access.keys import ApiKeyError
    from cde_serving.decision_log import DecisionLog, LogUnavailableError

    try:
        with key_issuer(settings, open_log=DecisionLog.open_existing) as issuer:
            key = asyncio.run(issuer.revoke(key_id))
    except (ApiKeyError, LogUnavailableError) as error:
        raise told_no(f"Not revoked: {error}", err=True) from error
    typer.echo(f"Key {key_id} of the tenant {key.tenant} is revoked; it counts for a second more at most.")


@app.command("list")
def list_keys(portfolio: PortfolioOption = None) -> None:
    """Print every API key, also revoked ones, without its secret."""
    settings = choose(portfolio)
    from rich.console import Console
    from rich.table import Table

    from cde_assets.api_keys import how_to_create, known_keys, state_of

    table = Table(title=f"API keys of {settings.portfolio_name()}", title_justify="left", box=None)
    for heading in ("id", "tenant", "scopes", "rate", "name", "created", "ends with", "state"):
        table.add_column(heading, no_wrap=True)
    now = settings.clock()()
    for key in known_keys(settings):
        created = f"{key.created_at[:16].replace('T', ' ')} by {key.created_by}"
        table.add_row(
            key.key_id, key.tenant, key.granted, key.rate or "default", key.name or "", created, f"…{key.last_digits}",
            state_of(key, now),
        )  # fmt: skip
    # A row stays a line, for grep and for narrow windows.
    Console(soft_wrap=True, width=LINE).print(
        table if table.rows else f"There are no API keys. {how_to_create(settings)}"
    )
