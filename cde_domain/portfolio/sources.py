"""What a portfolio reads: raw rows, the label in them, and what may be asked of the bureau."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter

from cde_domain.portfolio.errors import PortfolioError


class SourceOptions(BaseModel):
    """Base of a portfolio's options: what a run may change about where raw rows come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Source:
    """
    Where raw rows of one kind come from.

    `read` takes the portfolio's options and returns the rows, or an iterator of chunks with the same columns. `version`
    takes them too and returns a text that changes when the rows do, such as a table's newest time stamp; it is asked
    twice a minute. A source that reads files named in the options, or nothing but the options, needs none.
    """

    name: str
    description: str
    read: Callable[[Any], Any]
    version: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class OutcomeLabel:
    """
    The label of a loan: `column` holds `good` or `bad` (or nothing while the loan is young).

    With `matures_after_days` set, the loan book must be dated: an outcome counts only if `known_at` lies at least so
    many days after `applied_at`.
    """

    column: str
    good: Any
    bad: Any
    matures_after_days: int | None = None


@dataclass(frozen=True)
class Enrichment:
    """
    A part of the application that the service may ask the credit bureau for where a request leaves it out.

    `field` is a field of the application, `answer` the model that the bureau's answer must hold to; what holds to it
    becomes the field. It must be possible to decide without: the field is optional, or `{}` is a value of it.
    """

    field: str
    answer: type[BaseModel]

    def absent(self, application: type[BaseModel]) -> dict[str, Any]:
        """
        What stands in a request for this part when it is unknown.

        Raises:
            PortfolioError: the application has no such field, or cannot do without.
        """
        field = application.model_fields.get(self.field)
        if field is None:
            raise PortfolioError(f"{application.__name__} has no field {self.field!r} to be enriched")
        if not field.is_required():
            return {}
        try:
            TypeAdapter[Any](cast(Any, field.annotation)).validate_python({})
        except ValueError as error:
            raise PortfolioError(
                f"the field {self.field!r} cannot be enriched: it is required, and {{}} is no value of it"
            ) from error
        return {self.field: {}}
