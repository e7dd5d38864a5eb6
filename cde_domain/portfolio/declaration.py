"""The declaration of a portfolio: everything that a loan product is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from cde_domain.features.feature import Feature
from cde_domain.portfolio.alarms import Alarms
from cde_domain.portfolio.checks import check
from cde_domain.portfolio.experiments import ExperimentRules
from cde_domain.portfolio.lender import Creditor, DeclinedAlternative, Inventory, Retention
from cde_domain.portfolio.protected import ProtectedAttribute
from cde_domain.portfolio.sources import Enrichment, OutcomeLabel, Source, SourceOptions
from cde_domain.portfolio.thresholds import Economics, Thresholds

if TYPE_CHECKING:
    import pandas as pd  # the service decides without it

INTENDED_USE = "Decisions on applications of this portfolio, with a person deciding what the policy sends to review."
OUT_OF_SCOPE = (
    "Other products or other groups of customers than those of the loan book.",
    "Setting prices, limits or terms.",
    "Any use without the review by a person that the policy asks for.",
)
ETHICAL_CONSIDERATIONS = (
    "A refusal can keep a person from housing, work or care, and a loan that cannot be repaid can harm more than that.",
    "Protected attributes are read to measure fairness and by nothing else; no decision sees them. Other features can "
    "still stand for them, which is why the card says how much the features give away.",
    "Every rejected applicant gets the main reasons, and a person looks at what the policy sends to review.",
)
RECOMMENDATIONS = (
    "Compare scores and outcomes by quarter once loans mature, and groups too small for a verdict as they grow.",
    "Let a person decide near the cut-offs, where an error in the score changes the decision.",
)


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """
    One loan product.

    `join` takes the raw tables by source name and returns one row per application as known on its
    application date, with dotted column names for nested fields. `application_id`, `customer_id` and `applied_at` are
    numbered, copied or left empty where the join gives none; `outcome_known_at` is required for a dated portfolio.
    `boosting` overrides XGBoost's hyperparameters; `tuning_budget` is how many settings of each kind of trees (at most
    three) are compared on the folds. `alternatives` is how many candidates the search for less discriminatory models
    tries, 20 or more. `alarms` says when the owner is told of what is decided today, and `experiment` how a challenger
    comes to more customers. `enrichment` is what may be asked of the bureau. `amount` names the features whose product
    is the amount asked for, by which profits are weighted; without it all loans count alike. From `intended_use` on, it
    is what the model card says in the lender's own words; without an `inventory` entry the rule that asks for one stays
    open. `retention` says how long decisions are kept.
    """

    name: str
    title: str
    description: str
    application: type[BaseModel]
    features: tuple[Feature, ...]
    outcome: OutcomeLabel
    sources: tuple[Source, ...]
    join: "Callable[[Mapping[str, pd.DataFrame]], pd.DataFrame]"
    policy_file: Path
    example: Mapping[str, Any]
    economics: Economics
    creditor: Creditor
    protected: tuple[ProtectedAttribute, ...] = ()
    options: type[SourceOptions] = SourceOptions
    thresholds: Thresholds = field(default_factory=Thresholds)
    alarms: Alarms = field(default_factory=Alarms)
    promotion: Literal["automatic", "approval_required"] = "automatic"
    jurisdiction: Literal["IN", "US", "EU"] = "IN"
    boosting: Mapping[str, Any] = field(default_factory=dict)
    tuning_budget: int = 3
    alternatives: int = 24
    declined_alternatives: tuple[DeclinedAlternative, ...] = ()
    enrichment: Enrichment | None = None
    amount: tuple[str, ...] = ()
    intended_use: str = INTENDED_USE
    out_of_scope: tuple[str, ...] = OUT_OF_SCOPE
    ethical_considerations: tuple[str, ...] = ETHICAL_CONSIDERATIONS
    limits: tuple[str, ...] = ("Nothing is known of applicants to whom no loan was granted.",)
    recommendations: tuple[str, ...] = RECOMMENDATIONS
    references: tuple[str, ...] = ()
    inventory: Inventory | None = None
    retention: Retention = field(default_factory=Retention)
    experiment: ExperimentRules = field(default_factory=ExperimentRules)

    def __post_init__(self) -> None:
        check(self)
