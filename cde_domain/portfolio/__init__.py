"""A portfolio: everything a loan product is, in one folder with one Python module."""

from cde_domain.portfolio.alarms import Alarms
from cde_domain.portfolio.declaration import Portfolio
from cde_domain.portfolio.errors import PortfolioError
from cde_domain.portfolio.experiments import ExperimentRules
from cde_domain.portfolio.lender import Creditor, DeclinedAlternative, Inventory, Retention
from cde_domain.portfolio.loading import (
    PortfolioCode,
    load_portfolio,
    load_portfolio_copy,
    portfolio_code,
    shipped_portfolios,
)
from cde_domain.portfolio.protected import Monitoring, ProtectedAttribute, UnknownCategoryError, groups_by_value
from cde_domain.portfolio.sources import Enrichment, OutcomeLabel, Source, SourceOptions
from cde_domain.portfolio.thresholds import MIN_ALTERNATIVES, Economics, Thresholds

__all__ = [
    "MIN_ALTERNATIVES",
    "Alarms",
    "Creditor",
    "DeclinedAlternative",
    "Economics",
    "Enrichment",
    "ExperimentRules",
    "Inventory",
    "Monitoring",
    "OutcomeLabel",
    "Portfolio",
    "PortfolioCode",
    "PortfolioError",
    "ProtectedAttribute",
    "Retention",
    "Source",
    "SourceOptions",
    "Thresholds",
    "UnknownCategoryError",
    "groups_by_value",
    "load_portfolio",
    "load_portfolio_copy",
    "portfolio_code",
    "shipped_portfolios",
]
