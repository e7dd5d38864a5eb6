"""What must be true of a portfolio before anything is done with it."""

from typing import TYPE_CHECKING

from cde_domain.application import columns_of
from cde_domain.portfolio.errors import PortfolioError
from cde_domain.portfolio.protected import ProtectedAttribute
from cde_domain.portfolio.thresholds import MIN_ALTERNATIVES

if TYPE_CHECKING:
    from cde_domain.portfolio.declaration import Portfolio


def check(portfolio: "Portfolio") -> None:
    """
    Whether a declaration can be carried out.

    Raises:
        PortfolioError: it contradicts itself, or misses what it needs.
    """
    if not portfolio.name.isidentifier():
        raise PortfolioError(f"{portfolio.name!r} is no name for a portfolio: use letters, digits and _")
    for kind, names in (
        ("feature", [feature.name for feature in portfolio.features]),
        ("source", [source.name for source in portfolio.sources]),
        ("protected attribute", [attribute.name for attribute in portfolio.protected]),
    ):
        if not names and kind != "protected attribute":
            raise PortfolioError(f"portfolio {portfolio.name} has no {kind}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PortfolioError(f"portfolio {portfolio.name} has the {kind} {twice[0]} twice")
    if portfolio.alternatives < MIN_ALTERNATIVES:
        tried = f"alternatives={portfolio.alternatives}"
        raise PortfolioError(f"portfolio {portfolio.name} has {tried}: at least {MIN_ALTERNATIVES} are searched")
    for tolerance in ("alternative_auc_tolerance", "alternative_min_gain"):
        if not 0 < getattr(portfolio.thresholds, tolerance) < 1:
            raise PortfolioError(f"portfolio {portfolio.name}: {tolerance} must lie between 0 and 1")
    if portfolio.retention.days < 0 or len(portfolio.retention.reason) < 10:
        raise PortfolioError(f"portfolio {portfolio.name}: retention needs days, none below 0, and the duty as reason")
    _check_segments(portfolio)
    if portfolio.enrichment is not None:
        portfolio.enrichment.absent(portfolio.application)
    fields = columns_of(portfolio.application)  # a field of a kind that cannot be served is refused here, by name
    _check_monitoring(portfolio.name, portfolio.protected, {part for column in fields for part in column.path})
    _check_amount(portfolio)


def _check_segments(portfolio: "Portfolio") -> None:
    unknown = set(portfolio.experiment.segments) - {feature.name for feature in portfolio.features}
    if unknown:
        raise PortfolioError(f"portfolio {portfolio.name}: experiment.segments names no feature: {min(unknown)}")


def _check_monitoring(name: str, protected: tuple[ProtectedAttribute, ...], fields: set[str]) -> None:
    for attribute in protected:
        if attribute.monitoring is None:
            continue
        told = f"portfolio {name}: {attribute.name} is collected for monitoring"
        if attribute.name in fields:
            raise PortfolioError(f"{told}, so it cannot be a field of the application, which decides")
        if len(attribute.monitoring.values) < 2 or len(attribute.monitoring.legal_basis) < 10:
            raise PortfolioError(f"{told}, which takes two `values` or more, and the law as `legal_basis`")


def _check_amount(portfolio: "Portfolio") -> None:
    numbers = {feature.name for feature in portfolio.features if not feature.categories}
    if strange := sorted(set(portfolio.amount) - numbers):
        raise PortfolioError(f"portfolio {portfolio.name}: amount names {strange[0]!r}, which is no numeric feature")
