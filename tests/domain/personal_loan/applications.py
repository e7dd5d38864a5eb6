"""Applications for a personal loan, the features of one, and how large a book is simulated."""

import json
from datetime import date, timedelta
from typing import Any

from cde_domain.application import columns_of
from cde_domain.features.columns import columns_of_applications
from cde_domain.features.feature import feature_matrix
from cde_domain.portfolios.personal_loan import PORTFOLIO
from cde_domain.portfolios.personal_loan.application import PersonalLoanApplication
from cde_domain.portfolios.personal_loan.options import SimulationOptions

OPTIONS = SimulationOptions(rows=20_000)
SPECS = columns_of(PORTFOLIO.application)
NAMES = [feature.name for feature in PORTFOLIO.features]
APPLIED = date(2026, 3, 15)


def application(**changes: Any) -> PersonalLoanApplication:
    """The example with some fields changed, read as a request is."""
    return PersonalLoanApplication.model_validate_json(json.dumps({**PORTFOLIO.example, **changes}, default=str))


def with_history(**changes: Any) -> PersonalLoanApplication:
    """The example with some parts of its credit history changed."""
    return application(credit_history={**PORTFOLIO.example["credit_history"], **changes})


def features_of(applied_for: PersonalLoanApplication) -> dict[str, float]:
    row = feature_matrix(PORTFOLIO.features, columns_of_applications([applied_for], SPECS, APPLIED))[0]
    return dict(zip(NAMES, row.tolist(), strict=True))


def unknown(value: float) -> bool:
    return value != value


def statement(month: int, **changes: Any) -> dict[str, Any]:
    usual = {"average_balance": 4000.0, "inflow": 5000.0, "outflow": 4500.0, "overdrafts": 0}
    return {"month_end": date(2025, month + 1, 1) - timedelta(days=1), **usual, **changes}
