"""Stored models are loaded only as they were stored; any other byte is refused by the file's name before it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import skops.io

from cde_assets.model.challenger import store_model
from cde_checks.model import compiled_form_agrees
from cde_domain.digests import file_digest
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.candidates.descriptions import describe
from cde_domain.training.challenger import fit_scoring_model
from cde_domain.training.continuation import learned_rows
from cde_domain.training.histogram import HistogramSettings
from cde_domain.training.learner import TreeLearner
from cde_resources.portfolio import PortfolioResource
from tests.support import REFERENCE, ROWS, TinyLoans, training_rows, write_tiny_loans

LEARNERS = (BoostingSettings(rounds=20, seed=3), HistogramSettings(rounds=20, seed=3))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLoans:
    return write_tiny_loans(tmp_path_factory.mktemp("lender"))


@dataclass
class Stored:
    """A challenger on disk, and the applications it is compared on."""

    portfolio: PortfolioResource
    challenger: dict[str, Any]
    rows: pd.DataFrame

    def path(self, kind: str) -> Path:
        return self.portfolio.models / self.challenger["digest"] / self.challenger[kind]["file"]

    def agrees(self) -> bool:
        return compiled_form_agrees(
            portfolio=self.portfolio, challenger_model=self.challenger, holdout_set=self.rows
        ).passed


@pytest.fixture(params=LEARNERS, ids=lambda learner: learner.kind)
def stored(request: pytest.FixtureRequest, tiny: TinyLoans, tmp_path: Path) -> Stored:
    learner: TreeLearner = request.param
    portfolio = PortfolioResource(reference=REFERENCE, state=str(tmp_path))
    matrix, repaid = training_rows(seed=1)
    features = tiny.portfolio.features
    rows = pd.DataFrame(matrix, columns=[feature.name for feature in features]).assign(
        application_id=np.arange(ROWS).astype(str), customer_id=np.arange(ROWS).astype(str), repaid=repaid
    )
    description = describe(learner)
    provenance = {"learner": description["kind"], "parameters": description["settings"]}
    fitted = fit_scoring_model(
        features, matrix, repaid, np.arange(ROWS), learner, approve_at=0.8, provenance=provenance
    )
    digest, library, learned_from = store_model(portfolio, fitted, learned_rows(features, rows))
    challenger = {"digest": digest, "library": library, "learned_from": learned_from, "provenance": provenance}
    return Stored(portfolio, challenger, rows)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_a_model_as_it_was_stored_is_loaded_and_agrees_with_its_served_form(stored: Stored):
    assert stored.agrees()
    assert len(stored.portfolio.learned_from(stored.challenger)) == ROWS


@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink], ids=["changed", "truncated", "removed"])
@pytest.mark.parametrize("kind", ["library", "learned_from"])
def test_a_damaged_file_beside_a_model_is_refused_by_name(stored: Stored, kind: str, damage: Callable[[Path], None]):
    path = stored.path(kind)
    damage(path)

    with pytest.raises(dg.Failure, match=path.name):
        stored.agrees() if kind == "library" else stored.portfolio.learned_from(stored.challenger)


@pytest.mark.parametrize("name", ["model.json", "trees/leaf_value.npy"])
@pytest.mark.parametrize("damage", [_flip, _cut], ids=["changed", "truncated"])
def test_a_damaged_served_form_is_refused_by_its_digest(stored: Stored, name: str, damage: Callable[[Path], None]):
    digest = stored.challenger["digest"]
    damage(stored.portfolio.models / digest / "served" / name)

    with pytest.raises(dg.Failure, match=f"the files of model {digest[:12]} have the digest"):
        stored.agrees()


@pytest.mark.parametrize("stored", LEARNERS[1:], ids=["skops"], indirect=True)
def test_a_library_file_with_another_type_inside_is_refused_though_its_digest_is_recorded(stored: Stored):
    """Whoever can write the record as well still cannot have a type loaded that no model of ours is made of."""
    path = stored.path("library")
    path.write_bytes(skops.io.dumps({"estimator": Path("somewhere"), "ranks": {}}))
    stored.challenger["library"] = {"file": stored.challenger["library"]["file"], "sha256": file_digest(path)}

    with pytest.raises(skops.io.exceptions.UntrustedTypesFoundException, match="Path"):
        stored.agrees()
