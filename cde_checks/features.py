"""Statements about the feature table and its split."""

import dagster as dg
import pandas as pd

from cde_domain.application import columns_of
from cde_domain.features.table import features_that_give_away, online_parity, single_feature_aucs
from cde_resources.portfolio import PortfolioResource

PARITY_ROWS = 1_000


@dg.asset_check(asset="feature_table", blocking=True, additional_ins={"loan_book": dg.AssetIn()})
def exclude_protected_attributes(
    portfolio: PortfolioResource, feature_table: pd.DataFrame, loan_book: pd.DataFrame
) -> dg.AssetCheckResult:
    """No feature is a protected attribute, by name or by giving it away."""
    lending = portfolio.load()
    protected = {attribute.name for attribute in lending.protected}
    fields = {spec.name for spec in columns_of(lending.application)}
    named = protected & ({feature.name for feature in lending.features} | fields)
    found = features_that_give_away(lending.features, loan_book, feature_table)
    given_away = [
        f"{feature} gives away {attribute} ({accuracy:.0%})" for (feature, attribute), accuracy in found.items()
    ]
    problems = [f"{name} is a protected attribute" for name in sorted(named)] + given_away
    return dg.AssetCheckResult(
        passed=not problems,
        description="; ".join(problems) or None,
        metadata={"protected": len(protected), "features": len(lending.features), "problems": len(problems)},
    )


@dg.asset_check(asset="feature_table", blocking=True, additional_ins={"loan_book": dg.AssetIn()})
def match_the_online_path_bit_for_bit(
    portfolio: PortfolioResource, feature_table: pd.DataFrame, loan_book: pd.DataFrame
) -> dg.AssetCheckResult:
    """Applications sent through the service's request model and one-row path have the same features to the last bit."""
    result = online_parity(portfolio.load(), loan_book, feature_table, PARITY_ROWS, seed=0)
    return dg.AssetCheckResult(
        passed=not result.differing,
        description=", ".join(f"{name} differs in {count} rows" for name, count in result.differing.items()) or None,
        metadata={"rows": result.rows, "differing_features": len(result.differing)},
    )


@dg.asset_check(asset="feature_table", blocking=True)
def no_single_feature_leaks_the_label(portfolio: PortfolioResource, feature_table: pd.DataFrame) -> dg.AssetCheckResult:
    """No feature alone ranks the outcome better than a feature known before the outcome could."""
    lending = portfolio.load()
    areas = single_feature_aucs(lending.features, feature_table)
    if not areas:
        return dg.AssetCheckResult(passed=False, description="no feature is known for enough loans with an outcome")
    strongest = max(areas, key=lambda name: areas[name])
    limit = lending.thresholds.max_single_feature_auc
    return dg.AssetCheckResult(
        passed=areas[strongest] <= limit,
        description=None
        if areas[strongest] <= limit
        else f"{strongest} alone reaches an AUC of {areas[strongest]:.3f}",
        metadata={"strongest_feature": strongest, "auc": areas[strongest], "limit": limit},
    )


@dg.asset_check(asset="feature_table", blocking=True)
def hold_enough_outcomes(portfolio: PortfolioResource, feature_table: pd.DataFrame) -> dg.AssetCheckResult:
    """There are enough loans with a known outcome, and enough bad ones, to learn and to judge from."""
    limits = portfolio.load().thresholds
    loans = int(feature_table["repaid"].notna().sum())
    bad = int((feature_table["repaid"] == 0).sum())
    passed = loans >= limits.min_loans and bad >= limits.min_bad_loans
    said = f"{loans} loans with {bad} bad ones; {limits.min_loans} with {limits.min_bad_loans} bad ones are needed"
    return dg.AssetCheckResult(
        passed=passed, description=None if passed else said, metadata={"loans": loans, "bad_loans": bad}
    )


@dg.asset_check(asset="holdout_set", blocking=True, additional_ins={"training_set": dg.AssetIn()})
def no_customer_is_on_both_sides(holdout_set: pd.DataFrame, training_set: pd.DataFrame) -> dg.AssetCheckResult:
    """Nobody whose loans the model learned from is in the hold-out."""
    shared = len(set(holdout_set["customer_id"]) & set(training_set["customer_id"]))
    return dg.AssetCheckResult(
        passed=shared == 0,
        metadata={"training_rows": len(training_set), "holdout_rows": len(holdout_set), "shared_customers": shared},
    )
