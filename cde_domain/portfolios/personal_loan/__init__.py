"""Personal loans of an invented lender, on simulated data."""

from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd

from cde_domain.portfolio import (
    Alarms,
    Creditor,
    Economics,
    Enrichment,
    Inventory,
    OutcomeLabel,
    Portfolio,
    ProtectedAttribute,
    Thresholds,
)

from .application import CreditHistory, PersonalLoanApplication
from .features import FEATURES
from .options import OUTCOME_AFTER_DAYS, SimulationOptions
from .sources import SOURCES, join


def _protected(name: str, use: Literal["gate", "report"], why: str) -> ProtectedAttribute:
    def groups(book: pd.DataFrame) -> pd.Series:
        return book[name]

    return ProtectedAttribute(name, groups, use, why)


PORTFOLIO = Portfolio(
    name="personal_loan",
    title="Personal loans (simulated)",
    description="Unsecured instalment loans to private customers, repaid or defaulted a year after the application.",
    application=PersonalLoanApplication,
    features=FEATURES,
    outcome=OutcomeLabel("status", good="repaid", bad="defaulted", matures_after_days=OUTCOME_AFTER_DAYS),
    sources=SOURCES,
    join=join,
    options=SimulationOptions,
    policy_file=Path(__file__).with_name("policy.yaml"),
    protected=(
        _protected("gender", "gate", "lenders in India may not discriminate on grounds of sex"),
        _protected("religion", "gate", "lenders in India may not discriminate on grounds of religion"),
        _protected("caste", "gate", "lenders in India may not discriminate on grounds of caste"),
        _protected(
            "ethnicity", "report", "not named in the Indian codes for lenders; shown so that a disparity would be seen"
        ),
    ),
    economics=Economics(margin=0.15, loss_given_default=0.60),
    thresholds=Thresholds(min_auc=0.75),
    alarms=Alarms(min_accuracy=0.75, min_auc=0.80),
    promotion="automatic",
    enrichment=Enrichment("credit_history", answer=CreditHistory),
    amount=("loan_to_income", "annual_income"),
    jurisdiction="IN",
    boosting={
        "rounds": 250,
        "max_depth": 3,
        "learning_rate": 0.04,
        "min_child_weight": 10.0,
        "subsample": 0.6,
        "colsample_bytree": 0.4,
    },
    creditor=Creditor(
        name="Example Lending Company",
        address="1 Example Road, Example City",
        contact="credit.decisions@lender.example",
    ),
    inventory=Inventory(
        owner="Head of personal loans, Example Lending Company",
        developer="Model development, Example Lending Company",
        validator="Model validation, Example Lending Company",
        tier="high",
        tier_reviewed_on=date(2026, 11, 2),
    ),
    example={
        "customer_id": "test_123",
        "annual_income": 75000,
        "employment_years": 5,
        "existing_debt": 15000,
        "loan_amount": 25000,
        "loan_purpose": "home_improvement",
        "credit_history": {
            "score": 720,
            "accounts": [
                {"type": "credit_card", "status": "active"},
                {"type": "auto_loan", "status": "closed"},
            ],
        },
    },
    intended_use=(
        "Demonstrating and testing the whole path from a loan book to recorded decisions; a pattern for a lender's own "
        "portfolio. Not for decisions about real people."
    ),
    limits=(
        "All data is simulated: nothing was learnt from real borrowers, and the relations are simpler than real ones.",
        "Every simulated application was granted, whatever its risk: there are no refused applicants to infer from.",
        "Gaps in the data do not depend on the outcome; in real books they often do.",
        "The economy does not change over the five years unless drift is asked for.",
        "Protected attributes are drawn almost independently of risk, so fairness here says nothing about real groups.",
        "Each bureau report is drawn from its customer's standing and not grown from the customer's earlier reports.",
        "Age is a feature: a higher age never counts against an applicant, a lower one can.",
    ),
    references=(
        "Siddiqi, N. (2017). Intelligent Credit Scoring, 2nd ed. Wiley.",
        "Thomas, L. C., Edelman, D. B., Crook, J. N. (2017). Credit Scoring and Its Applications, 2nd ed. SIAM.",
        "Platt, J. (1999). Probabilistic outputs for support vector machines. Advances in Large Margin Classifiers.",
    ),
)
