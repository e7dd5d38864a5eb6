"""Statements about the loan book."""

import dagster as dg
import pandas as pd

from cde_domain.application import columns_of
from cde_domain.features.feature import feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.loan_book import immature, validate
from cde_domain.model.metrics import PsiReference
from cde_domain.release import Bundle, BundleError
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.ledger import LedgerError


@dg.asset_check(asset="loan_book", blocking=True)
def schema_holds(portfolio: PortfolioResource, loan_book: pd.DataFrame) -> dg.AssetCheckResult:
    """Every column has its declared type, bounds and categories."""
    _, problems = validate(portfolio.load(), loan_book)
    return dg.AssetCheckResult(
        passed=not problems,
        description="; ".join(map(str, problems)) or None,
        metadata={"rows": len(loan_book), "columns": len(loan_book.columns), "problems": len(problems)},
    )


@dg.asset_check(asset="loan_book", blocking=True)
def application_ids_are_unique(loan_book: pd.DataFrame) -> dg.AssetCheckResult:
    """No application appears twice."""
    twice = int(loan_book["application_id"].duplicated(keep=False).sum())
    return dg.AssetCheckResult(passed=twice == 0, metadata={"rows": len(loan_book), "rows_with_shared_id": twice})


@dg.asset_check(asset="loan_book", blocking=True)
def outcomes_are_mature(portfolio: PortfolioResource, loan_book: pd.DataFrame) -> dg.AssetCheckResult:
    """No outcome is stated before it can be known; undated books have none to judge."""
    days = portfolio.load().outcome.matures_after_days
    if days is None:
        return dg.AssetCheckResult(passed=True, metadata={"dated": False})
    early = int(immature(loan_book, days).sum())
    return dg.AssetCheckResult(
        passed=early == 0, metadata={"dated": True, "matures_after_days": days, "too_early": early}
    )


@dg.asset_check(asset="loan_book")
def has_not_drifted_from_the_champions_book(
    portfolio: PortfolioResource, releases: ReleasesResource, loan_book: pd.DataFrame
) -> dg.AssetCheckResult:
    """The book resembles the one that the champion learned from (population stability index by feature)."""
    try:
        champion = releases.store().current()
        indices = _stability(champion, loan_book) if champion else None
    except (BundleError, LedgerError, KeyError) as error:
        said = f"the champion cannot read this book ({type(error).__name__})"
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description=said)
    if indices is None:
        return dg.AssetCheckResult(passed=True, metadata={"champion": "none yet"})
    worst = max(indices, key=lambda name: indices[name])
    limit = portfolio.load().thresholds.max_book_psi
    return dg.AssetCheckResult(
        passed=indices[worst] <= limit,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"largest_psi": indices[worst], "feature": worst, "limit": limit},
    )


def _stability(champion: Bundle, loan_book: pd.DataFrame) -> dict[str, float]:
    lending, references = champion.portfolio, champion.engine.model.feature_references
    matrix = feature_matrix(lending.features, columns_of_frame(loan_book, columns_of(lending.application)))
    return {
        feature.name: PsiReference(**reference).psi(values)
        for feature, reference, values in zip(lending.features, references, matrix.T, strict=True)
    }
