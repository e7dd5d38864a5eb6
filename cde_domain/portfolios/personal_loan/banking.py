"""Simulated monthly bank statements."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .population import SNAPSHOT, Applications

Array = NDArray[np.float64]

MONTHS = 6
WITHHELD = 0.25  # share of applications without statements
SHARE_OF_MONTHS = {3: 0.05, 4: 0.05, 5: 0.10, 6: 0.80}


@dataclass(frozen=True)
class Statements:
    """
    The statements of the six months before each application, arrays of shape (applications, months), oldest first.

    `given` are those that reached the lender. `accrued` are those an applicant could have given, the youngest three
    to six: the truth rests on them, whether or not they were given.
    """

    month: NDArray[np.datetime64]
    average_balance: Array
    inflow: Array
    outflow: Array
    overdrafts: NDArray[np.int64]
    accrued: NDArray[np.bool_]
    given: NDArray[np.bool_]

    def characteristics(self, annual_income: Array) -> dict[str, Array]:
        """What the months say, by feature name."""
        months = self.accrued.sum(axis=1)
        received = np.where(self.accrued, self.inflow, 0).sum(axis=1)
        spent = np.where(self.accrued, self.outflow, 0).sum(axis=1)
        mean = received / months
        deviation = np.sqrt((np.where(self.accrued, self.inflow - mean[:, None], 0) ** 2).sum(axis=1) / months)
        balance = np.where(self.accrued, self.average_balance, 0).sum(axis=1) / months
        return {
            "balance_to_income": balance / (annual_income / 12),
            "cash_flow_regularity": mean / (mean + deviation),
            "monthly_overdrafts": np.where(self.accrued, self.overdrafts, 0).sum(axis=1) / months,
            "savings_rate": (received - spent) / received,
        }

    def table(self, customer: NDArray[np.object_]) -> pd.DataFrame:
        """The given statements as rows; `customer` is the identifier of each application's customer."""
        row, _ = np.nonzero(self.given)
        month_end = (self.month[self.given] + 1).astype("datetime64[D]") - 1
        return pd.DataFrame(
            {
                "customer_id": customer[row],
                "month_end": month_end.astype("datetime64[ns]"),
                "average_balance": self.average_balance[self.given],
                "inflow": self.inflow[self.given],
                "outflow": self.outflow[self.given],
                "overdrafts": self.overdrafts[self.given],
            }
        )


def draw_statements(generator: np.random.Generator, applications: Applications) -> Statements:
    """Draw the months before each application."""
    number = len(applications)
    month = _months_from(applications, np.arange(-MONTHS, 0))
    months = generator.choice(list(SHARE_OF_MONTHS), p=list(SHARE_OF_MONTHS.values()), size=number)
    accrued = np.arange(MONTHS) >= MONTHS - months[:, None]
    withheld = generator.random(number) < WITHHELD
    return _draw_months(generator, applications, month, accrued, accrued & ~withheld[:, None], strain=np.zeros(number))


def draw_later_statements(
    generator: np.random.Generator, applications: Applications, repaid: NDArray[np.bool_]
) -> Statements:
    """
    Draw months from the application on, which show how the loan went: a trap for joins that look ahead.

    Only last applications have them, so that no month of a customer comes twice.
    """
    number = len(applications)
    month = _months_from(applications, np.arange(4))
    month_end = (month + 1).astype("datetime64[D]") - 1
    told = (generator.random(number) < 0.3) & applications.last
    given = told[:, None] & (month_end <= SNAPSHOT)
    return _draw_months(generator, applications, month, given, given, strain=np.where(repaid, 0.0, 2.0))


def _months_from(applications: Applications, distance: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """The months at a distance from the month of each application, of shape (applications, months)."""
    return applications.applied.astype("datetime64[M]")[:, None] + distance.astype("timedelta64[M]")


def _draw_months(
    generator: np.random.Generator,
    applications: Applications,
    month: NDArray[np.datetime64],
    accrued: NDArray[np.bool_],
    given: NDArray[np.bool_],
    *,
    strain: Array,
) -> Statements:
    number, months = month.shape
    standing = applications.standing - strain
    pay = 0.8 * applications.annual_income / 12
    swing = np.minimum(0.10 * np.exp(0.7 * generator.standard_normal(number) - 0.15 * standing), 0.6)
    inflow = pay[:, None] * np.maximum(1 + swing[:, None] * generator.standard_normal((number, months)), 0.05)
    saved = 0.06 + 0.03 * standing + 0.10 * generator.standard_normal(number)
    outflow = (pay * (1 - np.minimum(saved, 0.6)))[:, None] * (1 + 0.1 * generator.standard_normal((number, months)))
    reserve = pay * 0.9 * np.exp(0.7 * generator.standard_normal(number) + 0.2 * standing)
    balance = reserve[:, None] * (1 + 0.2 * generator.standard_normal((number, months)))
    heavy_user = 0.25 * np.exp(0.9 * generator.standard_normal(number) - 0.5 * standing)
    return Statements(
        month=month,
        average_balance=np.round(balance, 2),
        inflow=np.round(inflow, 2),
        outflow=np.round(np.maximum(outflow, 0), 2),
        overdrafts=generator.poisson(np.minimum(heavy_user, 8)[:, None], (number, months)),
        accrued=accrued,
        given=given,
    )
