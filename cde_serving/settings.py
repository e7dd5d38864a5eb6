"""The settings of the whole platform, read from `CDE_` environment variables or a `.env` file."""

from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cde_domain.portfolio import load_portfolio


class Settings(BaseSettings):
    """Where state lives, what is served and on which ports; `.env.example` explains every field."""

    model_config = SettingsConfigDict(
        env_prefix="CDE_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    home: Path = Path(".cde")
    portfolio: str = "personal_loan"
    source_options: dict[str, Any] = {}
    host: str = "127.0.0.1"
    port: int = 8000
    dagster_port: int = 3000
    mlflow_port: int = 5000
    mlflow_tracking_uri: str | None = None
    decision_log_url: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    def portfolio_home(self, name: str) -> Path:
        """The folder that holds all state of the portfolio of this name."""
        return self.home / name

    def portfolio_name(self) -> str:
        """
        The name of the chosen portfolio.

        Raises:
            PortfolioError: an import path was given and nothing can be loaded from it.
        """
        # Only an import path is imported: a service of a shipped portfolio runs on the code in its bundle alone.
        return load_portfolio(self.portfolio).name if ":" in self.portfolio else self.portfolio

    def tracking_uri(self) -> str:
        """Where MLflow keeps runs and models."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home / 'mlflow.sqlite'}"

    def log_url(self, name: str) -> str:
        """The database that holds a portfolio's decisions."""
        return self.decision_log_url or f"sqlite:///{self.portfolio_home(name) / 'decisions.sqlite'}"
