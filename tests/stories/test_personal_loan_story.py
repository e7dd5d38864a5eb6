"""The default portfolio: simulated, so that its model can be held against the truth."""

import json
from pathlib import Path

import httpx
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cde_assets.api_keys import key_for_a_moment
from cde_assets.pii_scan import Scanner
from cde_assets.processes import free_port
from cde_assets.stack import promoted_bento, scoring_server
from cde_domain.model.metrics import auc
from cde_domain.portfolios.personal_loan.options import SimulationOptions
from cde_domain.portfolios.personal_loan.simulator import true_probability
from cde_serving.settings import Settings
from tests.lender import run_cde

BODY = {
    "customer_id": "test_123",
    "annual_income": 75000,
    "employment_years": 5,
    "existing_debt": 15000,
    "loan_amount": 25000,
    "loan_purpose": "home_improvement",
    "credit_history": {
        "score": 720,
        "accounts": [{"type": "credit_card", "status": "active"}, {"type": "auto_loan", "status": "closed"}],
    },
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the default demo has promoted a model."""
    home = tmp_path_factory.mktemp("personal")
    done = run_cde(home, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def _report(home: Path, name: str) -> dict:
    return json.loads((home / "artefacts" / "personal_loan" / f"{name}.json").read_text())


def test_the_model_comes_within_001_auc_of_the_true_probabilities(home: Path) -> None:
    scored = pd.read_parquet(home / "artefacts" / "personal_loan" / "out_of_fold_scores.parquet")
    truth = true_probability(SimulationOptions()).set_index("application_id")["probability"]
    best = auc(scored["repaid"].to_numpy(), truth.loc[scored["application_id"]].to_numpy())
    assert auc(scored["repaid"].to_numpy(), scored["score"].to_numpy()) >= best - 0.01


def test_its_calibration_error_is_at_most_three_percent(home: Path) -> None:
    evaluation = _report(home, "evaluation")
    assert evaluation["holdout"]["calibration_error"] <= 0.03
    assert evaluation["cross_validation"]["calibration_error"] <= 0.03


def test_the_credit_score_is_among_its_three_strongest_drivers(home: Path) -> None:
    importance = _report(home, "explanation_report")["importance"]
    assert "credit_score" in [row["feature"] for row in importance[:3]]


def test_the_hold_out_is_later_than_everything_that_was_learned_from(home: Path) -> None:
    folder = home / "artefacts" / "personal_loan"
    training, holdout = (pd.read_parquet(folder / f"{name}.parquet") for name in ("training_set", "holdout_set"))
    assert training["applied_at"].max() <= holdout["applied_at"].min()


# What may hold the loan book's values: the book itself and the tables made of its rows.
DECLARED = {
    "artefacts/personal_loan/*.parquet": "the loan book, its sources, features and splits",
    "personal_loan/models/*/learned_from/*.parquet": "the loans that a model learned from, for its continuation",
}


def test_no_personal_value_of_the_loan_book_leaves_its_tables(home: Path) -> None:
    """Neither MLflow's store, Dagster's event log, run logs and metadata, card, evidence, bundle, bento nor any log."""
    table = home / "artefacts" / "personal_loan" / "loan_book.parquet"
    names = ["customer_id", "application_id", "date_of_birth"]
    rows = pq.ParquetFile(table).read(columns=names).to_pylist()
    known = [row for row in rows if all(row.values())]
    shown = [known[position] for position in range(0, len(known), len(known) // 6)]
    values = [(name, str(row[name])[:10] if name == "date_of_birth" else row[name]) for row in shown for name in names]
    scanner = Scanner(values)

    assert scanner.of_files(home, DECLARED) == []
    a_row = ", ".join(str(value) for value in shown[0].values()).encode()
    assert {hit.field for hit in scanner.of_bytes(a_row, "a line of a log")} == set(names)


def test_the_bento_alone_decides_the_contracts_body_in_a_home_that_knows_nothing(home: Path, tmp_path: Path) -> None:
    tag = promoted_bento(Settings(home=home, _env_file=None))
    assert tag is not None
    port = free_port("127.0.0.1")
    server = scoring_server(Settings(home=home, _env_file=None), tag, port)
    server.environment = {**server.environment, "CDE_HOME": str(tmp_path)}
    with key_for_a_moment(Settings(home=tmp_path, _env_file=None), "score") as key, server:
        server.wait(120)
        url = f"http://127.0.0.1:{port}/api/v1/credit/score"
        answer = httpx.post(url, json=BODY, headers={"authorization": f"Bearer {key}"}).json()
    assert 0 <= answer["score"] <= 1
    assert answer["decision"] in {"APPROVED", "REJECTED", "MANUAL_REVIEW"}
    assert answer["explanation"]["decided_by"] == "model"
    assert answer["confidence"] == max(answer["score"], round(1 - answer["score"], 6))
    assert isinstance(answer["risk_factors"], list)
