"""The features of German credit: ten numbers, eight of them with a direction."""

from typing import get_args

from cde_domain.features.columns import ratio
from cde_domain.features.feature import Feature

from .application import Purpose

FEATURES = (
    Feature(
        "checking_account",
        lambda columns: columns["status_of_existing_checking_account"],
        description="Standing of the checking account, from 0 (least favourable) to 3",
        reason="The checking account shows neither a sufficient balance nor regular salary payments",
        unit="rank",
        monotone=1,
    ),
    Feature(
        "credit_history",
        lambda columns: columns["credit_history"],
        description="How earlier and running credits were paid, from 0 (least favourable) to 4",
        reason="Earlier and running credits give too little evidence of repayment on time",
        unit="rank",
        monotone=1,
    ),
    Feature(
        "savings",
        lambda columns: columns["savings_account_and_bonds"],
        description="Savings and bonds, from 0 (least) to 4",
        reason="Savings are low or not shown",
        unit="rank",
        monotone=1,
    ),
    Feature(
        "employment",
        lambda columns: columns["present_employment_since"],
        description="Time with the present employer, from 0 (unemployed) to 4 (seven years or more)",
        reason="The time with the present employer is short, or there is no employer",
        unit="rank",
        monotone=1,
    ),
    Feature(
        "duration",
        lambda columns: columns["duration_in_month"],
        description="Term of the credit",
        reason="The credit runs for a long time",
        unit="months",
        monotone=-1,
    ),
    Feature(
        "credit_amount",
        lambda columns: columns["credit_amount"],
        description="Amount of the credit; small and large credits both fail more often, so it has no direction",
        reason="Credits of this amount are repaid less often",
        unit="DM",
    ),
    Feature(
        "amount_per_month",
        lambda columns: ratio(columns["credit_amount"], columns["duration_in_month"]),
        description="Amount of the credit per month of its term: what must be repaid each month, without interest",
        reason="The amount to be repaid each month is high",
        unit="DM per month",
        monotone=-1,
    ),
    Feature(
        "purpose",
        lambda columns: columns["purpose"],
        description="What the credit is for",
        reason="Credits for this purpose are repaid less often",
        categories=get_args(Purpose),
    ),
    Feature(
        "other_debtors",
        lambda columns: columns["other_debtors_or_guarantors"],
        description="Who else answers for the credit: 0 a co-applicant, 1 nobody, 2 a guarantor",
        reason="No guarantor answers for the credit",
        unit="rank",
        monotone=1,
    ),
    Feature(
        "other_installment_plans",
        lambda columns: columns["other_installment_plans"],
        description="Who else is paid in instalments: 0 a bank, 1 a store, 2 nobody",
        reason="A bank or a store is being paid in instalments as well",
        unit="rank",
        monotone=1,
    ),
)
