"""Which bundle decides an application, and which others do in its shadow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cde_domain.decisions.engine import Routing
from cde_domain.decisions.variants import Variant
from cde_domain.release import Bundle
from cde_serving.applications import InvalidApplicationError, parse_application
from cde_serving.enrichment import Completed
from cde_serving.plan import Plan


@dataclass(frozen=True, slots=True)
class Assigned:
    """
    An application with the one bundle that decides it.

    `request` is the application as that bundle's model writes it, `sent` as the champion's does.
    """

    application: Any
    request: bytes
    sent: bytes
    variant: Variant
    bundle: Bundle
    fetched: tuple[str, ...]
    fault: Routing | None
    shadows: tuple[Bundle, ...] = ()


def assign(completed: Completed, champion: Bundle, plan: Plan | None, token: Callable[[str], str]) -> Assigned:
    """The bundle that decides for the customer, whose token is asked for only where an experiment needs it."""
    application, request = completed.application, completed.request
    variant, bundle = Variant.CHAMPION, champion
    if plan is not None and plan.challenger is not None:
        variant, bundle = plan.for_customer(token(application.customer_id), champion)
        if variant is Variant.CHALLENGER:
            try:
                application, request = parse_application(bundle.portfolio.application, completed.request)
            except InvalidApplicationError:  # what the champion takes is what applicants are told to send
                variant, bundle = Variant.CHAMPION, champion
    shadows = plan.shadows if plan is not None else ()
    return Assigned(
        application, request, completed.request, variant, bundle, completed.fetched, completed.fault, shadows
    )
