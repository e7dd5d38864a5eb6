"""A lender's book grows: the champion is continued on the new loans, and refused where that would not be honest."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.lender import Lender

pytestmark = pytest.mark.slow

NAME = "german_credit"
BOOK = Path(__file__).parents[2] / "cde_domain/portfolios/german_credit/german_credit.csv"
INCREMENTAL = {"mode": "incremental", "added_rounds": 30}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose champion learned from the first 600 loans."""
    folder = tmp_path_factory.mktemp("growing")
    pd.read_csv(BOOK, keep_default_na=False).head(600).to_csv(folder / "first.csv", index=False)
    with Lender(folder / "home", NAME, {"path": str(folder / "first.csv")}) as lender:
        refused = lender.run(training=INCREMENTAL)
        assert "there is no champion to continue yet" in refused.failures["candidate_models"]
        assert lender.run().success
    return folder / "home"


def _report(home: Path, name: str) -> dict[str, Any]:
    return json.loads((home / "artefacts" / NAME / f"{name}.json").read_text())


def test_a_grown_book_continues_the_champion_on_loans_it_never_met_and_is_promoted(home: Path) -> None:
    first = _report(home, "challenger_model")
    with Lender(home, NAME) as lender:
        champion = lender.ledger.entries()[-1].bundle
        library = home / NAME / "models" / first["digest"] / first["library"]["file"]
        content = library.read_bytes()

        library.write_bytes(content[:-1] + b"?")
        refused = lender.run(training=INCREMENTAL)
        assert library.name in refused.failures["candidate_models"]
        library.write_bytes(content)

        refused = lender.run(training={**INCREMENTAL, "resampling": "smote"})
        assert "SMOTE cannot be set in mode incremental" in refused.failures["candidate_models"]
        assert lender.ledger.entries()[-1].bundle == champion

        assert lender.run(training=INCREMENTAL).success
        assert lender.ledger.entries()[-1].previous == champion

    record, training_set = _report(home, "challenger_model"), home / "artefacts" / NAME / "training_set.parquet"
    assert record["provenance"]["training"]["continued"]["model_digest"] == first["digest"]
    assert record["provenance"]["training_rows"] == len(pd.read_parquet(training_set))
    assert record["training"]["rows"] == record["provenance"]["training_rows"] - first["provenance"]["training_rows"]
    assert f"added behind the trees of model `{first['digest'][:12]}`" in _report(home, "model_card")["markdown"]


def test_on_the_same_book_there_is_nothing_to_continue_on(home: Path) -> None:
    with Lender(home, NAME) as lender:
        refused = lender.run(training=INCREMENTAL)

    assert "0 loans are new to the champion" in refused.failures["candidate_models"]
