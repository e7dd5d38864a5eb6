"""What is wrong with a portfolio."""


class PortfolioError(ValueError):
    """A portfolio that cannot be loaded or contradicts itself."""
