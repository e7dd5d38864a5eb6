"""What the lender answers for: names, duties, the inventory, and models that it declines."""

import datetime
from dataclasses import dataclass
from typing import Literal

from cde_domain.portfolio.errors import PortfolioError


@dataclass(frozen=True, kw_only=True)
class DeclinedAlternative:
    """
    Why a named person does not adopt less discriminatory models that the search found, from `date` until `expires`.

    `candidates` are their names in the report. The answer travels with the portfolio's code, which is signed.
    """

    candidates: tuple[str, ...]
    name: str
    role: str
    date: datetime.date
    expires: datetime.date
    reason: str

    def __post_init__(self) -> None:
        if not self.candidates or isinstance(self.candidates, str):
            raise PortfolioError("a declined alternative needs `candidates`, a tuple of names from the report")
        if len(self.name) < 3 or len(self.role) < 2 or len(self.reason) < 10:
            raise PortfolioError(
                f"declining {self.candidates[0]!r} needs the name, the role and the reason of a person"
            )
        if self.expires <= self.date:
            raise PortfolioError(f"declining {self.candidates[0]!r} expires before it begins")

    def holds_on(self, day: datetime.date) -> bool:
        """Whether the answer holds on a day."""
        return self.date <= day < self.expires


@dataclass(frozen=True)
class Retention:
    """
    How many days the law makes the lender keep what it knows of a customer after the last decision, and which law.

    Until then the data of a customer who asks for erasure is restricted, and after it the customer's key is shredded.

    The default, five years, is that of India's rules on knowing one's customer; 12 CFR 1002.12(b) asks for 25 months.
    Ask counsel.
    """

    days: int = 1827
    reason: str = "Five years: Prevention of Money Laundering Act 2002, section 12, and the RBI KYC Directions"


@dataclass(frozen=True)
class Creditor:
    """
    Who signs the notices.

    `supervisor` is the authority that a notice must name, with its address (in the US, 12 CFR 1002.9(b)(1)), and
    `bureau` the agency whose reports are used, with address and telephone number (FCRA section 615(a)).
    """

    name: str
    address: str
    contact: str
    supervisor: str = ""
    bureau: str = ""


@dataclass(frozen=True)
class Inventory:
    """
    The model's entry in the lender's inventory, as the lender keeps it.

    `owner`, `developer` and `validator` name people or teams; `open_findings` are findings of the validation that must
    be closed before a promotion.
    """

    owner: str
    developer: str
    validator: str
    tier: Literal["high", "medium", "low"]
    tier_reviewed_on: datetime.date
    open_findings: tuple[str, ...] = ()
