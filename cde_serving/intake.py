"""From a request body to what is decided on, what is kept of it, and what is kept apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cde_domain.decisions.engine import Routing
from cde_domain.portfolio import Portfolio
from cde_serving.applications import InvalidApplicationError, parse_application
from cde_serving.protected import explained, set_apart


@dataclass(frozen=True, slots=True)
class Intake:
    """
    A validated application, its request as it is recorded, and the protected attributes that came with it.

    `fetched` names the parts that the bureau was asked for, `fault` what went wrong when it was asked.
    """

    application: Any
    request: bytes
    protected: Mapping[str, str] | None = None
    fetched: tuple[str, ...] = ()
    fault: Routing | None = None


def take_in(portfolio: Portfolio, body: bytes) -> Intake:
    """
    The application of a portfolio in a JSON body.

    Raises:
        InvalidApplicationError: the body is no application, or holds a protected attribute that is not collected.
    """
    try:
        decided_on, protected = set_apart(portfolio, body)
        application, request = parse_application(portfolio.application, decided_on)
    except InvalidApplicationError as error:
        raise explained(portfolio, error) from None
    return Intake(application, request, protected)
