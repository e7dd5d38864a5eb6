"""The API keys of a portfolio, for programs other than its service."""

import asyncio
import getpass
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from cde_serving.access.issuing import KeyIssuer
from cde_serving.access.keys import ApiKey, read_keys
from cde_serving.decision_log import DecisionLog, LogUnavailableError
from cde_serving.records.database import open_reader
from cde_serving.records.names import iso
from cde_serving.settings import Settings

DEMO_LIFETIME = timedelta(minutes=10)


@contextmanager
def key_issuer(
    settings: Settings, open_log: Callable[[Settings, str], DecisionLog] = DecisionLog.open
) -> Iterator[KeyIssuer]:
    """What creates and revokes keys, with the decision log open."""
    name = settings.portfolio_name()
    with closing(open_log(settings, name)) as log:
        yield KeyIssuer(log, name, by=f"person:{getpass.getuser()}", clock=settings.clock())


def known_keys(settings: Settings) -> list[ApiKey]:
    """Every key, also those that no longer count; none where there is no log yet."""
    try:
        name = settings.portfolio_name()
        engine = open_reader(settings.log_url(name), name)
    except LogUnavailableError:
        return []
    try:
        with engine.connect() as connection:
            return read_keys(connection)
    except SQLAlchemyError:  # a log of the version before, which the service brings up to date as it starts
        return []
    finally:
        engine.dispose()


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
    now = iso(settings.clock()())
    live = [
        key for key in known_keys(settings) if not key.revoked_at and (key.expires_at is None or key.expires_at > now)
    ]
    return None if live else f"Requests need an API key, and there is none. {how_to_create(settings)}"


@contextmanager
def key_for_a_moment(settings: Settings, *scopes: str, lifetime: timedelta = DEMO_LIFETIME) -> Iterator[str]:
    """A key of the default tenant that is revoked at the end, and expires by itself if that is never reached."""
    with key_issuer(settings) as issuer:
        key, token = asyncio.run(issuer.create(tenant="default", scopes=scopes, name="for a moment", lifetime=lifetime))
        try:
            yield token
        finally:
            asyncio.run(issuer.revoke(key.key_id))


def state_of(key: ApiKey, now: datetime) -> str:
    """Whether a key counts at a moment, and until or since when, in words."""
    if key.revoked_at:
        return f"revoked {key.revoked_at[:16].replace('T', ' ')}"
    if key.expires_at and key.expires_at <= iso(now):
        return f"expired {key.expires_at[:16].replace('T', ' ')}"
    return f"counts until {key.expires_at[:16].replace('T', ' ')}" if key.expires_at else "counts"
