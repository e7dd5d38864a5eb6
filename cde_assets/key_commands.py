"""What `cde keys create`, `revoke` and `list` do, each returning its exit status, and a key for a moment's use."""

import asyncio
import getpass
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta

import typer
from sqlalchemy.exc import SQLAlchemyError

from cde_domain.clock import utc_now
from cde_serving.access.issuing import KeyIssuer
from cde_serving.access.keys import ApiKey, ApiKeyError, read_keys
from cde_serving.decision_log import DecisionLog, LogUnavailableError
from cde_serving.records.database import open_reader
from cde_serving.records.names import iso
from cde_serving.settings import Settings

DEMO_LIFETIME = timedelta(minutes=10)

LINE = 200  # columns that a key may take


def create(
    settings: Settings, *, tenant: str, scopes: Sequence[str], rate: str | None, name: str | None, days: int | None
) -> int:
    """Create a key; standard output holds the key alone, so that a shell can keep it in a variable."""
    try:
        with _issuer(settings) as issuer:
            key, token = asyncio.run(
                issuer.create(
                    tenant=tenant,
                    scopes=scopes,
                    rate=rate,
                    name=name,
                    lifetime=timedelta(days=days) if days else None,
                )
            )
    except ApiKeyError as error:
        typer.echo(f"Not created: {error}", err=True)
        return 2
    except LogUnavailableError as error:
        typer.echo(f"Not created: {error}", err=True)
        return 1
    until = f" until {key.expires_at[:10]}" if key.expires_at else ""
    typer.echo(f"Key {key.key_id} of the tenant {tenant} may {key.granted.replace(' ', ', ')}{until}.", err=True)
    typer.echo("It is shown this once; it counts within a second:", err=True)
    typer.echo(token)
    return 0


def revoke(settings: Settings, key_id: str) -> int:
    """Revoke a key."""
    try:
        with _issuer(settings, open_log=DecisionLog.open_existing) as issuer:
            key = asyncio.run(issuer.revoke(key_id))
    except (ApiKeyError, LogUnavailableError) as error:
        typer.echo(f"Not revoked: {error}", err=True)
        return 1
    typer.echo(f"Key {key_id} of the tenant {key.tenant} is revoked; it counts for a second more at most.")
    return 0


def list_all(settings: Settings) -> int:
    """Print every key, also those that no longer count."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"API keys of {settings.portfolio_name()}", title_justify="left", box=None)
    for heading in ("id", "tenant", "scopes", "rate", "name", "created", "ends with", "state"):
        table.add_column(heading, no_wrap=True)
    for key in _known(settings):
        created = f"{key.created_at[:16].replace('T', ' ')} by {key.created_by}"
        table.add_row(
            key.key_id, key.tenant, key.granted, key.rate or "default", key.name or "", created, f"…{key.last_digits}",
            _state(key),
        )  # fmt: skip
    # A row stays a line, for grep and for narrow windows.
    Console(soft_wrap=True, width=LINE).print(
        table if table.rows else f"There are no API keys. {how_to_create(settings)}"
    )
    return 0


def how_to_create(settings: Settings) -> str:
    """The command that makes a key, as a person may paste it."""
    default = Settings.model_fields
    home = "" if settings.home == default["home"].default.absolute() else f"CDE_HOME={settings.home} "
    portfolio = "" if settings.portfolio == default["portfolio"].default else f" --portfolio {settings.portfolio}"
    return f"Make one: {home}.venv/bin/cde keys create --tenant default --scope score --scope read{portfolio}"


def access_hint(settings: Settings) -> str | None:
    """What to tell whoever starts the service: that anybody is let in, or how to make the first key."""
    if settings.auth == "off":
        return "Authentication is off (CDE_AUTH=off): whoever reaches the port is let in."
    now = iso(utc_now())
    live = [key for key in _known(settings) if not key.revoked_at and (key.expires_at is None or key.expires_at > now)]
    return None if live else f"Requests need an API key, and there is none. {how_to_create(settings)}"


@contextmanager
def key_for_a_moment(settings: Settings, *scopes: str) -> Iterator[str]:
    """A key of the default tenant that is revoked at the end, and expires by itself if that is never reached."""
    with _issuer(settings) as issuer:
        key, token = asyncio.run(
            issuer.create(tenant="default", scopes=scopes, name="for a moment", lifetime=DEMO_LIFETIME)
        )
        try:
            yield token
        finally:
            asyncio.run(issuer.revoke(key.key_id))


@contextmanager
def _issuer(
    settings: Settings, open_log: Callable[[Settings, str], DecisionLog] = DecisionLog.open
) -> Iterator[KeyIssuer]:
    name = settings.portfolio_name()
    with closing(open_log(settings, name)) as log:
        yield KeyIssuer(log, name, by=f"person:{getpass.getuser()}")


def _known(settings: Settings) -> list[ApiKey]:
    try:
        engine = open_reader(settings.log_url(settings.portfolio_name()))
    except LogUnavailableError:
        return []
    try:
        with engine.connect() as connection:
            return read_keys(connection)
    except SQLAlchemyError:  # a log of the version before, which the service brings up to date as it starts
        return []
    finally:
        engine.dispose()


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at[:16].replace('T', ' ')}"
    if key.expires_at and key.expires_at <= iso(utc_now()):
        return f"expired {key.expires_at[:16].replace('T', ' ')}"
    return f"counts until {key.expires_at[:16].replace('T', ' ')}" if key.expires_at else "counts"
