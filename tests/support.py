"""A small portfolio outside the repository, and bundles of models trained for it: real files, made in seconds."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cde_domain.decisions.policy import Policy
from cde_domain.portfolio import Portfolio
from cde_domain.release import write_bundle
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.challenger import fit_scoring_model

REFERENCE = "tiny_loans:PORTFOLIO"
NAME = "tiny_loans"
ROWS = 600

MODULE = '''"""Small loans for tests."""

import datetime
from pathlib import Path
from typing import Literal

import numpy as np

from cde_domain.application import Application, Record, field
from cde_domain.features.columns import ratio
from cde_domain.features.feature import Feature
from cde_domain.portfolio import Creditor, Economics, OutcomeLabel, Portfolio, Source

PURPOSES = ("car", "wedding", "other")


class Account(Record):
    """One credit account."""

    balance: float = field("Amount owed", purpose="test", unit="currency", ge=0, le=1e7)


class CreditHistory(Record):
    """What the bureau knew."""

    score: float | None = field("Bureau score", purpose="test", source="bureau", default=None, ge=300, le=900)
    accounts: list[Account] | None = field("Accounts", purpose="test", source="bureau", default=None, max_length=50)


class TinyApplication(Application):
    """An application for a small loan."""

    annual_income: float = field("Yearly income", purpose="test", unit="currency", gt=0, le=1e8)
    loan_amount: float = field("Amount asked for", purpose="test", unit="currency", gt=0, le=1e7)
    loan_purpose: Literal["car", "wedding", "other"] = field("What for", purpose="test")
    employed_since: datetime.date | None = field("First day of employment", purpose="test", default=None)
    note: str | None = field("Free text", purpose="test", default=None, max_length=200)
    credit_history: CreditHistory | None = field("Bureau report", purpose="test", source="bureau", default=None)


PORTFOLIO = Portfolio(
    name="tiny_loans",
    title="Tiny loans",
    description="Small loans for tests.",
    application=TinyApplication,
    features=(
        Feature("annual_income", lambda c: c["annual_income"], "Yearly income", "Income is low", "currency", 1),
        Feature(
            "loan_to_income",
            lambda c: ratio(c["loan_amount"], c["annual_income"]),
            "Loan amount over income",
            "The loan is large for the income",
            "ratio",
            -1,
        ),
        Feature("bureau_score", lambda c: c["credit_history.score"], "Score", "Bureau score is low", "points", 1),
        Feature(
            "total_balance",
            lambda c: c["credit_history.accounts"].sum(c["credit_history.accounts"]["balance"]),
            "Sum of balances",
            "Debts are high",
            "currency",
            -1,
        ),
        Feature("loan_purpose", lambda c: c["loan_purpose"], "Purpose", "The loan's purpose", categories=PURPOSES),
    ),
    outcome=OutcomeLabel("status", "good", "bad"),
    sources=(Source("loans", "Loans", lambda options: None),),
    join=lambda tables: tables["loans"],
    policy_file=Path(__file__).parent / "policy.yaml",
    example={
        "customer_id": "customer-1",
        "annual_income": 60000.0,
        "loan_amount": 5000.0,
        "loan_purpose": "car",
        "employed_since": "2020-03-01",
        "credit_history": {"score": 720.0, "accounts": [{"balance": 1200.0}]},
    },
    economics=Economics(margin=0.1, loss_given_default=0.5),
    creditor=Creditor("Tiny Bank", "1 Test Street", "credit@tiny.example"),
)
'''

POLICY = """\
version: "1"
approve_at: 0.8
review_at: 0.4
rules:
  - code: BUREAU_SCORE_TOO_LOW
    when: {feature: bureau_score, below: 350}
    decision: REJECTED
    reason: The bureau score is below 350
"""


@dataclass(frozen=True)
class TinyLoans:
    """The portfolio in its folder, importable by `REFERENCE` from there."""

    folder: Path
    portfolio: Portfolio
    reference: str = REFERENCE


def write_tiny_loans(folder: Path, *, module: str = MODULE, name: str = NAME) -> TinyLoans:
    """Write the portfolio's package into a folder, and import it from there; another module needs a name of its own."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(module, encoding="utf-8")
    (package / "policy.yaml").write_text(POLICY, encoding="utf-8")
    sys.path.insert(0, str(folder))
    return TinyLoans(folder, importlib.import_module(name).PORTFOLIO, f"{name}:PORTFOLIO")


def write_tiny_bundle(tiny: TinyLoans, folder: Path, *, seed: int) -> Path:
    """Train a model on synthetic rows and write its bundle below `folder/bundles`; another seed is another bundle."""
    matrix, repaid = training_rows(seed)
    fitted = fit_scoring_model(
        tiny.portfolio.features,
        matrix,
        repaid,
        np.arange(ROWS),
        BoostingSettings(rounds=40, seed=seed, threads=1),
        approve_at=Policy.read(tiny.portfolio.policy_file).approve_at,
        provenance={"seed": seed},
    )
    model = folder / f"model-{seed}"
    fitted.scoring_model.save(model)
    return write_bundle(folder / "bundles", tiny.reference, tiny.portfolio, model)


def training_rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    income = random.lognormal(10.8, 0.6, ROWS)
    share = random.uniform(0.01, 1.0, ROWS)
    score = np.where(random.random(ROWS) < 0.1, np.nan, random.uniform(300, 900, ROWS))
    balance = random.exponential(5000, ROWS)
    purpose = random.integers(0, 3, ROWS).astype(float)
    margin = 1.5 + 0.8 * (np.log(income) - 10.8) - 2.5 * share + np.nan_to_num((score - 600) / 100) - balance / 10000
    repaid = (random.random(ROWS) < 1 / (1 + np.exp(-margin))).astype(float)
    return np.column_stack([income, share, score, balance, purpose]), repaid
