"""The portfolio of a code location, and where its state lives."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from cde_domain.digests import file_digest, json_digest
from cde_domain.model.scoring_model import ScoringModel, model_digest
from cde_domain.portfolio import Portfolio, load_portfolio, portfolio_code
from cde_resources.clock import opened_clock

ARTEFACTS = "artefacts"
AS_OF = "as_of"  # the option of sources that can be read as they stood on a day


@cache
def _loaded(reference: str) -> Portfolio:
    return load_portfolio(reference)


class PortfolioResource(dg.ConfigurableResource):
    """
    A portfolio by reference (`german_credit`, `my_bank.car_loans:PORTFOLIO`), its home folder and its source options.

    The options say where raw rows come from, for instance `{"path": "loans.csv"}` or `{"rows": 60000, "seed": 3}`.
    """

    reference: str
    state: str
    source_options: dict[str, Any] = Field(default_factory=dict)
    clock_file: str | None = None
    pages_url: str = "http://127.0.0.1:8001"

    def load(self) -> Portfolio:
        """The portfolio."""
        return _loaded(self.reference)

    def now(self) -> datetime:
        """The time."""
        return opened_clock(self.clock_file)()

    def options(self) -> Any:
        """
        The portfolio's validated source options.

        Sources that can be read as of a day are read as of the one that a clock file tells, unless an option names it.

        Raises:
            pydantic.ValidationError: an option is unknown or of the wrong type.
        """
        options = self.load().options
        told = {AS_OF: self.now().date()} if self.clock_file and AS_OF in options.model_fields else {}
        return options.model_validate({**told, **self.source_options})

    def code_digest(self) -> str:
        """The digest of the portfolio's code and policy as they are on disk: all that decides besides the model."""
        files = portfolio_code(self.reference).files
        digests = {name: file_digest(path) for name, path in files.items()}
        return json_digest({"code": digests, "policy": file_digest(self.load().policy_file)})

    @property
    def home(self) -> Path:
        """The folder with everything that this portfolio has made."""
        return Path(self.state) / self.load().name

    def page_link(self, page: Path) -> dg.MetadataValue:
        """The link to a page that an asset has written below the portfolio's home."""
        return dg.MetadataValue.url(f"{self.pages_url}/{page.relative_to(self.state).as_posix()}")

    @property
    def artefacts(self) -> Path:
        """The folder of what the portfolio's assets return."""
        return Path(self.state) / ARTEFACTS / self.load().name

    @property
    def models(self) -> Path:
        """The folder of all models, each in a folder named by its digest."""
        return self.home / "models"

    def library_file(self, digest: str, library: Mapping[str, str]) -> Path:
        """
        The file of a model in its library's own form, verified against `library`, its recorded name and SHA-256.

        Raises:
            dagster.Failure: the file is missing, or not the one that was stored.
        """
        return self.stored_file(digest, library, "the library's form")

    def stored_file(self, digest: str, record: Mapping[str, str], what: str = "the file") -> Path:
        """
        A file beside a model, verified against its recorded name and SHA-256.

        Raises:
            dagster.Failure: the file is missing, or not the one that was stored.
        """
        path = self.models / digest / record["file"]
        if not path.is_file() or file_digest(path) != record["sha256"]:
            raise dg.Failure(f"{path.name} is not {what} of model {digest[:12]}", allow_retries=False)
        return path

    def learned_from(self, challenger: Mapping[str, Any]) -> pd.DataFrame:
        """
        The applications and customers that a model learned from, by its record.

        Raises:
            dagster.Failure: the list is missing, or not the one that was stored.
        """
        path = self.stored_file(challenger["digest"], challenger["learned_from"], "the list of loans")
        return pd.read_parquet(path)

    def scoring_model(self, digest: str) -> ScoringModel:
        """
        Load a model after verifying its files.

        Raises:
            dagster.Failure: the files are not those that the digest names.
        """
        return ScoringModel.load(self.served_folder(digest))

    def served_folder(self, digest: str) -> Path:
        """
        The folder of a model in the form that is served, verified.

        Raises:
            dagster.Failure: the files are not those that the digest names.
        """
        folder = self.models / digest / "served"
        actual = model_digest(folder)
        if actual != digest:
            raise dg.Failure(f"the files of model {digest[:12]} have the digest {actual[:12]}", allow_retries=False)
        return folder
