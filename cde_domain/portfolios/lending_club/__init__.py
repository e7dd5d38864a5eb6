"""LendingClub: 9,857 real US instalment loans of which one in twenty went bad."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from cde_domain.application import columns_of
from cde_domain.portfolio import (
    Creditor,
    Economics,
    Inventory,
    OutcomeLabel,
    Portfolio,
    Source,
    SourceOptions,
    Thresholds,
)

from .application import LoanApplication
from .features import FEATURES

if TYPE_CHECKING:
    import pandas as pd  # the service loads this module too, and has no pandas

HERE = Path(__file__).parent
FUNDED_LOANS = "funded_loans"
LABEL = "Class"


class FileOptions(SourceOptions):
    """Where the funded loans are: the shipped book, or the lender's own CSV or Parquet file with the same columns."""

    path: Path = HERE / "lending_club.csv"


def _read(options: FileOptions) -> "pd.DataFrame":
    from cde_domain.loan_book import read_table  # pandera and pyarrow: only where tables are read

    return read_table(options.path)


def _join(tables: Mapping[str, "pd.DataFrame"]) -> "pd.DataFrame":
    # int_rate and sub_grade are the old lender's own verdict on these loans and addr_state tells where people live,
    # which stands for race and national origin; none of them goes beyond this point.
    wanted = ["application_id", *(column.name for column in columns_of(LoanApplication)), "applied_at"]
    return tables[FUNDED_LOANS].filter([*wanted, LABEL])


PORTFOLIO = Portfolio(
    name="lending_club",
    title="LendingClub loans",
    description=(
        "Unsecured US instalment loans of three or five years, funded through LendingClub in the first quarter of "
        "2016: 9,340 paid back or on time, 517 charged off, defaulted or late."
    ),
    application=LoanApplication,
    features=FEATURES,
    outcome=OutcomeLabel(column=LABEL, good="good", bad="bad"),
    options=FileOptions,
    sources=(Source(FUNDED_LOANS, "One row per funded loan, with its state when the file was made", _read),),
    join=_join,
    policy_file=HERE / "policy.yaml",
    economics=Economics(margin=0.05, loss_given_default=0.60),
    amount=("loan_amount",),
    # Without the old lender's grade a logistic regression reaches an AUC of 0.68; the floor leaves room for chance
    # among the 100 or so bad loans of a hold-out set.
    thresholds=Thresholds(min_auc=0.62, max_calibration_error=0.03),
    jurisdiction="US",
    creditor=Creditor(
        name="Example Marketplace Lending",
        address="100 Example Street, San Francisco, CA 94105, USA",
        contact="credit.decisions@lending.example",
        supervisor="Federal Trade Commission, Equal Credit Opportunity, Washington, DC 20580",
        bureau="Example Credit Bureau, 200 Example Avenue, Chicago, IL 60601, telephone 1-800-555-0100",
    ),
    inventory=Inventory(
        owner="Head of consumer credit, Example Marketplace Lending",
        developer="Model development, Example Marketplace Lending",
        validator="Model validation, Example Marketplace Lending",
        tier="high",
        tier_reviewed_on=date(2026, 11, 2),
    ),
    example={
        "customer_id": "C-2001",
        "funded_amnt": 12000,
        "term": "term_36",
        "annual_inc": 64000.0,
        "verification_status": "Source_Verified",
        "emp_length": "emp_5",
        "inq_last_6mths": 1,
        "inq_fi": 1,
        "acc_now_delinq": 0,
        "open_il_12m": 1,
        "num_il_tl": 6,
        "all_util": 62.0,
    },
    # Few shallow, strongly regularised trees: 517 bad loans carry no more. One thread, because two only wait for each
    # other on so few rows.
    boosting={
        "rounds": 200,
        "max_depth": 2,
        "learning_rate": 0.04,
        "min_child_weight": 5.0,
        "reg_lambda": 10.0,
        "subsample": 0.7,
        "colsample_bytree": 0.5,
        "threads": 1,
    },
    intended_use=(
        "To show and to test governed credit decisions on a real, imbalanced book. Not for decisions on today's "
        "applicants."
    ),
    limits=(
        "The file has no protected attribute (no sex, race, national origin or age), so fairness cannot be measured on "
        "it: no figure here says that decisions are fair.",
        "Only loans that the old lender funded are in the book; how declined applicants would have repaid is unknown.",
        "One quarter of one year, and loans were judged while still running: some that were on time fail later, so the "
        "risk over the whole term is understated.",
        "int_rate and sub_grade are the old lender's own risk decision and would leak it; addr_state stands for race "
        "and national origin. None of them is used.",
        "Income is as stated. Verified incomes fail more often because the lender verified where it had doubts; under "
        "another practice of verification that feature would mean something else.",
        "An AUC near 0.69 separates weakly: most rejected applicants would have repaid.",
        "The book has no dates: neither a split in time nor drift against an earlier book can be shown.",
    ),
    references=(
        "LendingClub, loan data of the first quarter of 2016, as the data set lending_club of the R package modeldata "
        "(M. Kuhn, MIT licence), https://modeldata.tidymodels.org/reference/lending_club.html",
    ),
)
