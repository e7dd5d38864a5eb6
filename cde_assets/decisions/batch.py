"""The applications of a day, scored by the champion without a request for each."""

from datetime import date

import dagster as dg
import numpy as np

from cde_assets.decisions import GROUP
from cde_assets.metadata import OWNERS, picture, problem_table
from cde_checks.decisions import DAYS
from cde_checks.decisions.batch import find_applications, scores_file
from cde_domain.decisions.daily import read_applications, score_applications, write_scores
from cde_domain.digests import file_digest
from cde_domain.loan_book import LoanBookError
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"parquet"}, partitions_def=DAYS)
def batch_scores(
    context: dg.AssetExecutionContext, portfolio: PortfolioResource, releases: ReleasesResource
) -> dg.MaterializeResult:
    """
    The applications of a day with score, decision and reasons, to the bit what the service would answer that day.

    Reads `batch/applications/<day>.parquet` (or `.csv`) in the portfolio's home and writes `batch/scores/<day>.parquet`
    with the promoted champion; the same applications and champion give the same bytes. These scores are for lists and
    offers: whoever answers an applicant asks the service, which records what it answers.
    """
    day = date.fromisoformat(context.partition_key)
    champion = releases.store().current()
    if champion is None:
        raise dg.Failure("nothing is promoted yet: run train_and_release first", allow_retries=False)
    source = find_applications(portfolio.home, day)
    try:
        book = read_applications(champion.portfolio, source, day)
    except LoanBookError as error:
        raise dg.Failure(str(error), {"problems": problem_table(error.problems)}, allow_retries=False) from error
    scores = score_applications(champion.engine, book, day, bundle=champion.digest)
    target = scores_file(portfolio.home, day)
    write_scores(target, scores)
    decisions = scores["decision"].to_numpy(zero_copy_only=False)
    shares = {
        f"{name.lower()}_rate": float(np.mean(decisions == name)) if len(decisions) else 0.0
        for name in ("APPROVED", "REJECTED", "MANUAL_REVIEW")
    }
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(scores),
            **shares,
            "bundle": champion.digest,
            "policy_version": champion.engine.policy.version,
            "applications_sha256": file_digest(source),
            "path": dg.MetadataValue.path(str(target)),
            "sha256": file_digest(target),
            **_histogram(
                scores["score"].drop_null().to_numpy(),
                champion.engine.policy.approve_at,
                champion.engine.policy.review_at,
            ),
        }
    )


def _histogram(scores: "np.ndarray", approve_at: float, review_at: float) -> dict[str, dg.MarkdownMetadataValue]:
    if not len(scores):
        return {}
    from cde_assets import pictures  # matplotlib takes a second to import

    return {"scores": picture(pictures.batch_histogram(scores, approve_at, review_at), "Scores of the day")}
