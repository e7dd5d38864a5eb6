"""The lender of the benchmarks: simulated personal loans, and one promoted model of 300 trees of depth 5."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.application import columns_of, request_of
from cde_domain.decisions.policy import Policy
from cde_domain.features.table import feature_table, labels_of, matrix_of
from cde_domain.loan_book import assemble
from cde_domain.portfolio import Portfolio
from cde_domain.portfolios.personal_loan import PORTFOLIO
from cde_domain.release import Bundle, load_bundle, write_bundle
from cde_domain.training.boosting import BoostedTrees, BoostingSettings
from cde_domain.training.challenger import fit_scoring_model
from cde_resources.releases import ReleasesResource
from cde_serving.access.issuing import KeyIssuer
from cde_serving.decision_log import DecisionLog
from cde_serving.settings import Settings

NAME = "personal_loan"
ROWS = 20_000
TREES = BoostingSettings(rounds=300, max_depth=5, learning_rate=0.05, threads=1)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lender:
    """A book of simulated loans, its features, and one model in all its forms."""

    home: Path
    book: pd.DataFrame
    matrix: Array
    booster: BoostedTrees
    bundle: Bundle

    @property
    def portfolio(self) -> Portfolio:
        """The portfolio."""
        return PORTFOLIO

    @property
    def booster_file(self) -> Path:
        """The model in XGBoost's own form."""
        return self.home / "model.ubj"

    def new_key(self) -> str:
        """An API key for scoring, as fast as it can be asked."""
        log = DecisionLog.open(Settings(home=self.home, portfolio=NAME, _env_file=None), NAME)
        try:
            issuer = KeyIssuer(log, NAME, by="benchmarks")
            return asyncio.run(issuer.create(tenant="default", scopes=["score"], rate="1000000/second"))[1]
        finally:
            log.close()

    def applications(self, count: int) -> list[dict[str, Any]]:
        """So many different applications as JSON objects."""
        columns = columns_of(PORTFOLIO.application)
        return [request_of(row, columns) for row in self.book.head(count).to_dict("records")]

    def write_bodies(self, count: int) -> tuple[Path, Path]:
        """Two files of request bodies, one a line: the applications, and their features as lists."""
        applications, features = self.home / "applications.jsonl", self.home / "features.jsonl"
        applications.write_text("\n".join(json.dumps(body) for body in self.applications(count)), encoding="utf-8")
        rows = self.matrix[:count].tolist()
        names = [feature.name for feature in PORTFOLIO.features]
        known = [[None if value != value else value for value in row] for row in rows]
        lines = [json.dumps({"dataframe_split": {"columns": names, "data": [row]}}) for row in known]
        features.write_text("\n".join(lines), encoding="utf-8")
        return applications, features


def simulate(rows: int, seed: int = 11) -> pd.DataFrame:
    """A loan book of `rows` simulated applications."""
    options = PORTFOLIO.options.model_validate({"rows": rows, "seed": seed})
    tables = {}
    for source in PORTFOLIO.sources:
        read = source.read(options)
        tables[source.name] = read if isinstance(read, pd.DataFrame) else pd.concat(read, ignore_index=True)
    return assemble(PORTFOLIO, tables)


def open_lender(home: Path, rows: int = ROWS) -> Lender:
    """Simulate, train and promote in an empty folder."""
    book = simulate(rows)
    table = feature_table(PORTFOLIO, book)
    labelled = table[table["repaid"].notna()]
    fitted = fit_scoring_model(
        PORTFOLIO.features,
        matrix_of(PORTFOLIO, labelled),
        labels_of(labelled),
        labelled["customer_id"].to_numpy(),
        TREES,
        approve_at=Policy.read(PORTFOLIO.policy_file).approve_at,
        provenance={"made for": "benchmarks"},
    )
    assert isinstance(fitted.library_model, BoostedTrees)
    settings = Settings(home=home, portfolio=NAME, _env_file=None)
    releases = ReleasesResource.of(settings, NAME)
    fitted.scoring_model.save(home / "served")
    fitted.library_model.save(home / "model.ubj")
    store = releases.store()
    folder = write_bundle(store.bundles, NAME, PORTFOLIO, home / "served")
    store.ledger.append(
        action="promote",
        portfolio=NAME,
        bundle=folder.name,
        expected_sequence=0,
        evidence="0" * 64,
        by="benchmarks",
        key=releases.signer(),
    )
    bundle = load_bundle(folder, folder.name)
    return Lender(home, book, matrix_of(PORTFOLIO, table), fitted.library_model, bundle)
