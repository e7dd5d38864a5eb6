"""The documented truth of the simulator: the probability that a loan is repaid.

The log-odds of repayment are the sum of the terms below. Their inputs bear the names of the features, with two
differences: the truth is about the person and the loan, so it knows what a report or statement may leave out (a thin
file's score, hidden sections), and it averages over everything that nobody can know on the application date. The
outcome is one draw from the probability, so no model can have a higher expected AUC than the probability itself.

Every term moves in the direction that its feature declares as `monotone`. Two interactions are beyond a scorecard:
debt weighs more on a weak credit score, and a large loan more on a short employment.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

INTERCEPT = 1.75

PURPOSE_EFFECTS = {
    "home_improvement": 0.12,
    "debt_consolidation": -0.12,
    "car": 0.15,
    "education": 0.10,
    "medical": -0.10,
    "business": -0.35,
    "wedding": 0.05,
    "travel": -0.05,
    "moving": -0.10,
    "household_goods": 0.0,
    "other": -0.10,
}


def repayment_log_odds(known: Mapping[str, Array], purpose: NDArray[np.object_]) -> Array:
    """The log-odds of repayment from characteristics by feature name, and the purpose of each loan."""
    score = (known["credit_score"] - 690) / 80
    debt, loan, tenure = known["debt_to_income"], known["loan_to_income"], known["employment_years"]
    return (
        INTERCEPT
        + 0.92 * score
        - 0.75 * (np.log1p(3 * debt) - 0.75)
        - 0.30 * np.log(np.maximum(loan, 0.02) / 0.35)
        + 0.15 * np.log(np.maximum(known["annual_income"], 1_000) / 60_000)
        + 0.16 * (np.sqrt(np.minimum(tenure, 20)) - 2)
        + 0.008 * (np.clip(known["age"], 21, 50) - 37)
        - 0.60 * known["has_defaults"]
        - 0.30 * np.minimum(known["delinquent_accounts"], 2)
        - 0.20 * np.minimum(known["recent_inquiries"], 5)
        + 0.10 * np.log1p(known["total_accounts"])
        - 0.08 * np.maximum(known["active_accounts"] - 4, 0)
        + 0.01 * np.minimum(_or(known["oldest_account_years"], 0), 12)
        - 0.30 * (np.minimum(_or(known["card_utilisation"], 0.4), 1.2) - 0.4)
        + 0.08 * np.log(np.maximum(known["balance_to_income"], 0.05) / 0.8)
        + 0.90 * (known["cash_flow_regularity"] - 0.85)
        - 0.15 * np.minimum(known["monthly_overdrafts"], 3)
        + 0.40 * np.clip(known["savings_rate"], -0.5, 0.5)
        + np.array([PURPOSE_EFFECTS[name] for name in purpose])
        - 0.30 * np.clip(debt - 0.5, 0, 1.5) * np.maximum(-score, 0)
        - 0.30 * np.clip(loan - 0.5, 0, 2) * (tenure < 2)
    )


def repayment_probability(known: Mapping[str, Array], purpose: NDArray[np.object_]) -> Array:
    """P(repaid) from characteristics by feature name, and the purpose of each loan."""
    return 1 / (1 + np.exp(-repayment_log_odds(known, purpose)))


def _or(values: Array, default: float) -> Array:
    """Nobody without accounts has an oldest one, nobody without cards uses them: they count as `default`."""
    return np.where(np.isnan(values), default, values)
