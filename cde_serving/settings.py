"""The settings of the whole platform, read from `CDE_` environment variables or a `.env` file."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, HttpUrl, NonNegativeInt, Secret, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cde_domain.clock import Clock, utc_now
from cde_domain.portfolio import load_portfolio
from cde_serving.clock_file import ClockFile


class Settings(BaseSettings):
    """Where state lives, what is served and on which ports; `.env.example` explains every field."""

    model_config = SettingsConfigDict(
        env_prefix="CDE_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,  # some are passwords
    )

    home: Path = Path(".cde")
    portfolio: str = "personal_loan"
    source_options: dict[str, Any] = {}
    host: str = "127.0.0.1"
    port: int = 8000
    dagster_port: int = 3000
    mlflow_port: int = 5000
    pages_port: int = 8001
    mlflow_tracking_uri: str | None = None
    decision_log_url: str | None = None
    auth: Literal["on", "off"] = "on"
    rate_limit: str = "10000/second"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    access_log: Literal["problems", "all", "off"] = "problems"
    warm_explanations: Literal["on", "off"] = "on"
    signing_key: Path | None = None
    verify_key: Path | None = None
    approver_keys: Path | None = None
    master_key: Path | None = None
    log_key: Path | None = None
    log_checkpoints: Path | None = None
    retention_days: NonNegativeInt | None = None
    bureau_url: HttpUrl | None = None
    bureau_deadline: float = Field(default=0.8, gt=0, le=5)
    clock_file: Path | None = None
    dagster_url: HttpUrl | None = None
    pages_url: HttpUrl | None = None
    alert_webhook: Secret[HttpUrl] | None = None
    alert_slack: Secret[HttpUrl] | None = None
    alert_smtp: SecretStr | None = None
    alert_from: str = "credit-decisions@localhost"
    alert_to: str = ""
    alert_repeat_hours: float = Field(default=24.0, gt=0, le=24 * 366)

    @field_validator(
        *(
            "home",
            "signing_key",
            "verify_key",
            "approver_keys",
            "master_key",
            "log_key",
            "log_checkpoints",
            "clock_file",
        )
    )
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path else None

    @model_validator(mode="after")
    def _mail_has_recipients(self) -> Self:
        if self.alert_smtp and not self.alert_recipients():
            raise ValueError("CDE_ALERT_SMTP is set and CDE_ALERT_TO names nobody: give addresses, with commas between")
        return self

    def clock(self) -> Clock:
        """
        What time it is: the machine's, unless a file tells it.

        Raises:
            ClockFileError: `clock_file` tells no time.
        """
        return ClockFile(self.clock_file) if self.clock_file else utc_now

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

    def signing_key_file(self) -> Path:
        """The platform's private key."""
        return self.signing_key or self.home / "keys" / "signing.pem"

    def verify_key_file(self) -> Path:
        """The public key that ledger and evidence are verified with: as set, or beside the private key."""
        return self.verify_key or self.signing_key_file().with_suffix(".pub")

    def approver_keys_folder(self) -> Path:
        """The folder of the approvers' public keys."""
        return self.approver_keys or self.home / "keys" / "approvers"

    def master_key_file(self) -> Path:
        """The key that wraps the keys of customers."""
        return self.master_key or self.home / "keys" / "master.key"

    def log_key_file(self) -> Path:
        """The private key that signs the decision log's checkpoints."""
        return self.log_key or self.home / "keys" / "log.pem"

    def log_public_key_file(self) -> Path:
        """The public key that checkpoints are verified with, beside the private one."""
        return self.log_key_file().with_suffix(".pub")

    def checkpoints_file(self, name: str) -> Path:
        """The file of the signed checkpoints of a portfolio's decision log."""
        folder = self.log_checkpoints / name if self.log_checkpoints else self.portfolio_home(name)
        return folder / "checkpoints.jsonl"

    def alert_recipients(self) -> tuple[str, ...]:
        """Who gets alerts by mail."""
        return tuple(address.strip() for address in self.alert_to.split(",") if address.strip())

    def dagster_address(self) -> str:
        """The address of the Dagster UI, as people reach it, without a slash at the end."""
        return str(self.dagster_url or f"http://{self.host}:{self.dagster_port}").rstrip("/")

    def pages_address(self) -> str:
        """Where the pages that assets write are reached, without a slash at the end."""
        return str(self.pages_url or f"http://{self.host}:{self.pages_port}").rstrip("/")

    def tracking_uri(self) -> str:
        """Where MLflow keeps runs and models."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home / 'mlflow.sqlite'}"

    def log_url(self, name: str) -> str:
        """The database that holds a portfolio's decisions."""
        return self.decision_log_url or f"sqlite:///{self.portfolio_home(name) / 'decisions.sqlite'}"
