"""Protected attributes: what fairness is measured by and no decision sees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd  # the service decides without it


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """
    That applicants are asked for a protected attribute, for fairness monitoring and nothing else.

    They may answer one of `values` or nothing. `legal_basis` names the law that allows or asks for it, for instance
    12 CFR 1002.5(a)(4) and 1002.13 in the United States, or article 9(2) GDPR with article 10(5) of the AI Act.
    """

    values: tuple[str, ...]
    legal_basis: str


@dataclass(frozen=True)
class ProtectedAttribute:
    """
    An attribute that fairness is measured by and that no decision may see.

    `groups` takes the joined loan book and returns each applicant's group (missing where unknown). A `gate` can stop a
    promotion, a `report` is shown; `why` says why it is the one or the other. A request that holds it is refused unless
    `monitoring` says that it is collected; then it is kept apart from all that decides.
    """

    name: str
    groups: "Callable[[pd.DataFrame], pd.Series]"
    use: Literal["gate", "report"]
    why: str
    monitoring: Monitoring | None = None


class UnknownCategoryError(ValueError):
    """Values of a column that have no group; `rows` says where, nothing says which."""

    def __init__(self, column: str, rows: "pd.Series") -> None:
        super().__init__(f"{column} has values that belong to no group")
        self.column = column
        self.rows = rows


def groups_by_value(book: "pd.DataFrame", column: str, groups: Mapping[Any, str]) -> "pd.Series":
    """
    The group of each row by the value of one column, missing where the value is.

    Raises:
        UnknownCategoryError: a value has no group; taking it for any would hide it from the fairness analysis.
    """
    found = book[column].map(groups)
    strange = book[column].notna() & found.isna()
    if strange.any():
        raise UnknownCategoryError(column, strange)
    return found
