"""Links to pages: they open in a browser, and nothing else of the home does."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from cde_assets.pages import pages
from cde_resources.portfolio import PortfolioResource
from tests.support import NAME, REFERENCE

ADDRESS = "http://127.0.0.1:8001"
CARD = f"models/{'a' * 64}/model_card.html"
DRIFT = "decisions/reports/drift_report/2026-07-01.html"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for page in (CARD, DRIFT, "keys/master.key", "decisions/recorded/2026-07-01.parquet", "other.html"):
        file = tmp_path / NAME / page
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<p>{page}</p>", encoding="utf-8")
    return tmp_path


def opened(home: Path, link: str, host: str = "127.0.0.1:8001") -> httpx.Response:
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(pages(home, ["127.0.0.1"]))
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as browser:
            return await browser.get(link, headers={"host": host})

    return asyncio.run(get())


@pytest.mark.parametrize("page", [CARD, DRIFT])
def test_the_link_that_an_asset_shows_opens_its_page(home: Path, page: str) -> None:
    portfolio = PortfolioResource(reference=REFERENCE, state=str(home), pages_url=ADDRESS)

    shown = opened(home, str(portfolio.page_link(home / NAME / page).value))

    assert (200, f"<p>{page}</p>") == (shown.status_code, shown.text)
    assert shown.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "path",
    [
        f"{NAME}/keys/master.key",
        f"{NAME}/decisions/recorded/2026-07-01.parquet",
        f"{NAME}/other.html",
        f"{NAME}/decisions/reports/drift_report/../../../keys/master.key",
        f"{NAME}/decisions/reports/drift_report/%2e%2e%2f%2e%2e%2f%2e%2e%2fkeys%2fmaster.key",
        f"{NAME}/decisions/reports/drift_report/2026-07-02.html",
    ],
)
def test_nothing_but_a_page_is_given_away(home: Path, path: str) -> None:
    assert 404 == opened(home, f"/{path}").status_code


def test_the_first_page_links_every_page_and_nothing_else(home: Path) -> None:
    links = re.findall('href="/([^"]*)"', opened(home, "/").text)

    assert sorted([f"{NAME}/{CARD}", f"{NAME}/{DRIFT}"]) == links


def test_a_name_that_somebody_pointed_at_this_machine_finds_no_page(home: Path) -> None:
    """As DNS rebinding does, which lets a page of elsewhere read what a loopback port serves."""
    asked = opened(home, f"/{NAME}/{CARD}", host="evil.example")

    assert 400 == asked.status_code
