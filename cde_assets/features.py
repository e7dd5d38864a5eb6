"""Stage features: the model inputs of every application, and the split into training and hold-out."""

import dagster as dg
import pandas as pd

from cde_assets.metadata import OWNERS, describe_columns, table
from cde_domain.features.table import feature_table as compute_feature_table
from cde_domain.features.table import split
from cde_resources.portfolio import PortfolioResource

GROUP = "features"
SPLIT_SEED = 20


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"pandas", "parquet"})
def feature_table(
    context: dg.AssetExecutionContext, portfolio: PortfolioResource, loan_book: pd.DataFrame
) -> pd.DataFrame:
    """The features of every application, computed by the code that also runs in the scoring service."""
    lending = portfolio.load()
    features = compute_feature_table(lending, loan_book)
    missing = {feature.name: float(features[feature.name].isna().mean()) for feature in lending.features}
    dictionary = [
        {
            "feature": feature.name,
            "unit": feature.unit,
            "description": feature.description,
            "towards repayment": {1: "rising", -1: "falling", 0: "free"}[feature.monotone],
            "unknown share": missing[feature.name],
        }
        for feature in lending.features
    ]
    context.add_output_metadata(
        {
            "features": len(lending.features),
            "largest_unknown_share": max(missing.values()),
            "dictionary": table(dictionary),
        }
    )
    return describe_columns(features, lending)


@dg.multi_asset(
    outs={
        "training_set": dg.AssetOut(
            group_name=GROUP, owners=OWNERS, kinds={"pandas", "parquet"}, description="The applications to learn from."
        ),
        "holdout_set": dg.AssetOut(
            group_name=GROUP,
            owners=OWNERS,
            kinds={"pandas", "parquet"},
            description="The applications to judge by: the latest fifth where dated, otherwise a random fifth.",
        ),
    }
)
def training_and_holdout(
    context: dg.AssetExecutionContext, portfolio: PortfolioResource, feature_table: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labelled applications, split by time where dated, with no customer on both sides."""
    lending = portfolio.load()
    training, holdout = split(feature_table, seed=SPLIT_SEED)
    for name, part in (("training_set", training), ("holdout_set", holdout)):
        metadata: dict[str, object] = {"repayment_rate": float(part["repaid"].mean())}
        if part["applied_at"].notna().any():
            metadata["from"] = str(part["applied_at"].min().date())
            metadata["to"] = str(part["applied_at"].max().date())
        context.add_output_metadata(metadata, output_name=name)
        describe_columns(part, lending)
    return training, holdout
