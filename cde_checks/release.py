"""Statements about the bento."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from cde_domain.application import columns_of, request_of
from cde_domain.features.table import applied_on
from cde_resources.bentos import BentoStore
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.decide import decide_line

ASKED = 200


@dg.asset_check(
    asset="scoring_bento",
    blocking=True,
    additional_ins={"holdout_set": dg.AssetIn(), "loan_book": dg.AssetIn()},
)
def bento_answers_like_the_champion(
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    bentos: BentoStore,
    scoring_bento: dict[str, Any],
    holdout_set: pd.DataFrame,
    loan_book: pd.DataFrame,
) -> dg.AssetCheckResult:
    """The code inside the bento decides hold-out applications exactly as the champion does here."""
    champion = releases.store().current()
    if champion is None or champion.digest != scoring_bento["bundle"]:
        return dg.AssetCheckResult(passed=False, description="the bento is not of today's champion")
    lines = _lines(portfolio, loan_book, holdout_set)
    code = Path(scoring_bento["path"]) / "src"
    done = subprocess.run(
        [sys.executable, "-m", "cde_serving.decide", "release"],
        cwd=code,
        env=bentos.environment() | {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"},
        input=b"".join(line + b"\n" for line in lines),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        # What it printed can quote the applicant that it failed on, and descriptions go into alerts.
        again = f"`python -m cde_serving.decide release` in {code} shows why"
        said = f"the bento's code ended with exit status {done.returncode}: {again}"
        return dg.AssetCheckResult(passed=False, description=said)
    expected = [decide_line(champion, line) for line in lines]
    differing = sum(theirs != ours for theirs, ours in zip(done.stdout.splitlines(), expected, strict=True))
    return dg.AssetCheckResult(passed=differing == 0, metadata={"asked": len(lines), "differing": differing})


def _lines(portfolio: PortfolioResource, loan_book: pd.DataFrame, holdout_set: pd.DataFrame) -> list[bytes]:
    columns = columns_of(portfolio.load().application)
    chosen = loan_book["application_id"].isin(holdout_set["application_id"].head(ASKED))
    return [
        json.dumps(
            {
                "application": request_of(row, columns),
                "applied_at": applied_on(row).isoformat(),
            }
        ).encode()
        for row in loan_book[chosen].to_dict("records")
    ]
