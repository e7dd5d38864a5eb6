"""Statements about the scores of a day."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.parquet as pq

from cde_checks.decisions import PARTITION
from cde_domain.application import columns_of, request_of
from cde_domain.decisions.daily import read_applications
from cde_domain.digests import file_digest
from cde_domain.release import Bundle
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource

ASKED = 200


def find_applications(home: Path, day: date) -> Path:
    """
    The file of a day's applications.

    Raises:
        dagster.Failure: there is none, or there are two.
    """
    folder = home / "batch" / "applications"
    found = [path for ending in ("parquet", "csv") if (path := folder / f"{day}.{ending}").is_file()]
    if len(found) != 1:
        what = "no applications" if not found else "two files of applications"
        raise dg.Failure(
            f"there are {what} for {day}: put one file at {folder / f'{day}.parquet'} (or .csv), "
            "with its columns and no rows if nobody applied",
            allow_retries=False,
        )
    return found[0]


def scores_file(home: Path, day: date) -> Path:
    """Where the scores of a day are."""
    return home / "batch" / "scores" / f"{day}.parquet"


@dg.asset_check(asset="batch_scores")
def equal_the_answers_one_by_one(
    context: dg.AssetCheckExecutionContext, portfolio: PortfolioResource, releases: ReleasesResource
) -> dg.AssetCheckResult:
    """Applications of the day sent one by one through the service's request model get the same bits."""
    day = date.fromisoformat(context.run.tags[PARTITION])  # a check of one partition is a preview in Dagster
    path = scores_file(portfolio.home, day)
    rows = pq.read_table(path).to_pylist()
    champion = releases.store().current()
    if champion is None or any(row["bundle"] != champion.digest for row in rows):
        return dg.AssetCheckResult(passed=False, description="another champion was promoted since: score the day again")
    asked, differing = compare(champion, find_applications(portfolio.home, day), day, rows)
    return dg.AssetCheckResult(
        passed=not differing,
        description=f"rows {', '.join(map(str, differing[:5]))} differ" if differing else None,
        metadata={"asked": asked, "differing": len(differing), "sha256": file_digest(path)},
    )


def compare(champion: Bundle, applications: Path, day: date, rows: list[dict[str, Any]]) -> tuple[int, list[int]]:
    """How many applications were decided again, alone, and the numbers (from 1) of those that came out otherwise."""
    book = read_applications(champion.portfolio, applications, day)
    if len(book) != len(rows):
        return 0, list(range(1, abs(len(book) - len(rows)) + 1))
    sample = np.sort(np.random.default_rng(0).permutation(len(book))[:ASKED])
    specs = columns_of(champion.portfolio.application)
    differing = []
    for place, given in zip(sample.tolist(), book.iloc[sample].to_dict("records"), strict=True):
        application = champion.portfolio.application.model_validate_json(json.dumps(request_of(given, specs)))
        decision = champion.engine.decide(application, day)
        alone = (decision.score, decision.decision, decision.decided_by, [*map(str, decision.reason_codes)])
        row = rows[place]
        if alone != (row["score"], row["decision"], row["decided_by"], row["reason_codes"]):
            differing.append(place + 1)
    return len(sample), differing
