"""Where in the Dagster UI something is to be seen."""

from urllib.parse import quote

import dagster as dg

from cde_serving.settings import Settings


def run_link(settings: Settings, run_id: str) -> str:
    """The page of a run."""
    return f"{settings.dagster_address()}/runs/{run_id}"


def automation_link(settings: Settings) -> str:
    """The page of sensors and schedules."""
    return f"{settings.dagster_address()}/automation"


def asset_link(settings: Settings, key: dg.AssetKey, *, check: str | None = None) -> str:
    """The page of an asset, or of one of its checks."""
    page = f"{settings.dagster_address()}/assets/{'/'.join(quote(part, safe='') for part in key.path)}"
    return f"{page}?view=checks&checkDetail={quote(check)}" if check else page
