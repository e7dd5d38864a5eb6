"""How a run trains: the run config of `candidate_models`, which the challenger and its reports follow."""

from typing import Any, Literal

import dagster as dg
from pydantic import Field


class TrainingConfig(dg.Config):
    """Training mode and options. What is set here is recorded with the model and stands on its card."""

    mode: Literal["full", "incremental"] = Field(
        default="full",
        description="full: every candidate on the whole training set. incremental: rounds added behind the trees of "
        "the champion, which must be XGBoost, on loans of customers whom it did not learn from.",
    )
    added_rounds: int = Field(
        default=50, ge=1, le=500, description="incremental only: how many boosting rounds are added."
    )
    outliers: Literal["none", "winsorise"] = Field(
        default="none",
        description="winsorise: for each fit, numbers beyond its own 1st and 99th percentile are moved there.",
    )
    resampling: Literal["none", "smote"] = Field(
        default="none",
        description="smote: each fit gets synthetic loans of the rarer outcome until both are equally many. It shifts "
        "every score; PERF-03 measures what that does to the cut-offs, and stops the promotion where it does harm.",
    )
    class_weights: bool = Field(
        default=False, description="Weigh both outcomes equally in each fit. It shifts every score as smote does."
    )

    def options(self) -> dict[str, Any]:
        """The options of training as `TrainingOptions` takes them."""
        return {"outliers": self.outliers, "resampling": self.resampling, "class_weights": self.class_weights}
