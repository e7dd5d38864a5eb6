"""Protected attributes in requests: refused, or, where the portfolio collects them, taken out before any decision."""

import json
from collections.abc import Mapping
from typing import Any

from cde_domain.portfolio import Portfolio
from cde_domain.protected_names import PROTECTED_WORDS, is_named
from cde_serving.applications import InvalidApplicationError, Problem, parse_application, refuse_duplicate_keys

PROTECTED = "protected_attribute"
NOT_COLLECTED = (
    "Protected attribute: no decision may depend on it, and this portfolio does not collect it for monitoring. "
    "Leave it out"
)


def parse_apart(portfolio: Portfolio, body: bytes) -> tuple[Any, bytes, Mapping[str, str] | None]:
    """
    The application in a JSON body and what is kept of it, as `parse_application`, and its protected attributes apart.

    Raises:
        InvalidApplicationError: as `parse_application`, and where a protected attribute is not collected.
    """
    try:
        decided_on, protected = set_apart(portfolio, body)
        return *parse_application(portfolio.application, decided_on), protected
    except InvalidApplicationError as error:
        raise explained(portfolio, error) from None


def set_apart(portfolio: Portfolio, body: bytes) -> tuple[bytes, Mapping[str, str] | None]:
    """
    A body without the protected attributes that its portfolio collects for monitoring, and these.

    What the model then decides on is what it would be given from an applicant who does not answer.

    Raises:
        InvalidApplicationError: an attribute is given twice, or is none of the values that are asked for.
    """
    asked = {one.name: one.monitoring.values for one in portfolio.protected if one.monitoring is not None}
    if not asked:
        return body, None
    refuse_duplicate_keys(body)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return body, None  # the model says better what is wrong
    if not isinstance(content, dict) or not (given := asked.keys() & content.keys()):
        return body, None
    values = {name: content.pop(name) for name in sorted(given)}
    if problems := [_not_asked(name, asked[name]) for name, value in values.items() if not _is_of(value, asked[name])]:
        raise InvalidApplicationError(problems)
    return json.dumps(content).encode(), {name: value for name, value in values.items() if value is not None}


def explained(portfolio: Portfolio, error: InvalidApplicationError) -> InvalidApplicationError:
    """The same refusal, which says of a protected attribute why it is refused."""
    words = PROTECTED_WORDS | {attribute.name for attribute in portfolio.protected}
    return InvalidApplicationError(
        [
            Problem(problem.field, NOT_COLLECTED, PROTECTED)
            if problem.type == "extra_forbidden" and is_named(problem.field.rpartition(".")[2], words)
            else problem
            for problem in error.problems
        ]
    )


def schema_of(portfolio: Portfolio) -> dict[str, Any]:
    """The collected attributes as properties of the application's schema."""
    return {
        one.name: {
            "type": "string",
            "enum": [*one.monitoring.values, None],
            "nullable": True,
            "description": f"For fairness monitoring alone; no decision sees it. {one.monitoring.legal_basis}",
        }
        for one in portfolio.protected
        if one.monitoring is not None
    }


def _is_of(value: Any, values: tuple[str, ...]) -> bool:
    return value is None or (isinstance(value, str) and value in values)


def _not_asked(name: str, values: tuple[str, ...]) -> Problem:
    return Problem(name, f"Input should be {', '.join(map(repr, values))} or null", "literal_error")
