"""From a thousand real loans to a promoted model, and everything that must not be promoted after it."""

import json
import re
import shutil
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from cde_checks.judgement import REPORTS
from cde_checks.release import bento_answers_like_the_champion
from cde_domain.portfolios import german_credit
from cde_resources.bentos import BentoStore
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.settings import Settings
from tests.lender import Lender, run_cde

BOOK = Path(german_credit.__file__).parent / "german_credit.csv"


def test_the_demo_prints_a_decision_and_writes_it_down(german_home: Path) -> None:
    decision = json.loads((german_home / "demo" / "decision.json").read_text())
    printed = (german_home / "demo" / "printed.txt").read_text()
    assert decision["decision"] in {"APPROVED", "REJECTED", "MANUAL_REVIEW"}
    assert f"{decision['decision']} at a score of {decision['score']}" in printed


def test_the_demo_tells_every_asset_and_every_check(german_home: Path) -> None:
    printed = (german_home / "demo" / "printed.txt").read_text()
    for told in ("loan_book", "challenger_model", "champion_model", "passed is monotone", "cross-validation"):
        assert told in printed


def test_cross_validated_auc_on_german_credit_reaches_078(german_home: Path) -> None:
    evaluation = _report(german_home, "evaluation")
    assert evaluation["cross_validation"]["folds"] == 5
    assert evaluation["cross_validation"]["auc_mean"] >= 0.78


def test_the_card_carries_the_cross_validated_auc_and_the_honest_status_of_small_groups(german_home: Path) -> None:
    card = _report(german_home, "model_card")["markdown"]
    assert f"{_report(german_home, 'evaluation')['cross_validation']['auc_mean']:.3f}" in card
    assert "**Insufficient data.** Too small for a fairness verdict: foreign_worker no" in card


def test_small_books_are_judged_fair_on_out_of_fold_scores_of_all_loans(german_home: Path) -> None:
    report = _report(german_home, "fairness_report")
    assert report["measured_on"] == "out_of_fold"
    assert report["rows"] == 1000


def test_the_compliance_report_is_honest_about_what_failed_and_what_is_open(german_home: Path) -> None:
    rules = {rule["id"]: rule for rule in _report(german_home, "compliance_report")["rules"]}
    assert rules["PERF-01"]["status"] == rules["FAIR-01"]["status"] == "pass"
    assert (rules["FAIR-09"]["status"], rules["FAIR-09"]["blocks"]) == ("fail", False)  # the young
    assert rules["FAIR-02"]["status"] == rules["FAIR-05"]["status"] == "insufficient_data"
    waiting = {rule["id"] for rule in rules.values() if rule["status"] == "not_yet_measured"}
    assert {rule["id"] for rule in rules.values() if rule["phase"] == "operation" and rule["checks"]} <= waiting
    assert rules["GOV-01"]["status"] == rules["GOV-02"]["status"] == "pass"
    card = _report(german_home, "model_card")["markdown"]
    assert "> **Failed.**\n>\n> - Impact and opportunity, attributes that are reported" in card
    assert "| FAIR-02 | Equal opportunity and equalized odds, attributes that gate | insufficient data |" in card


def test_the_fairness_report_knows_errors_scores_intersections_and_proxies(german_home: Path) -> None:
    report = _report(german_home, "fairness_report")
    by_age = next(result for result in report["attributes"] if result["attribute"] == "age")
    assert by_age["opportunity"]["equal_opportunity"]["between"] == ["25 or younger", "older than 25"]
    assert {tuple(pair["attributes"]) for pair in report["intersections"]} == {
        ("sex", "age"),
        ("sex", "foreign_worker"),
        ("age", "foreign_worker"),
    }
    assert {proxy["attribute"] for proxy in report["proxies"]} == {"sex", "age", "foreign_worker"}


def test_a_group_without_verdict_is_in_the_ledger_and_does_not_stop_an_automatic_portfolio(german: Lender) -> None:
    first = german.ledger.entries()[0]
    assert any(note.startswith("insufficient_data: foreign_worker=no") for note in first.notes)
    assert "FAIR-02" in first.details["insufficient_data"]
    assert first.details["failed"] == ["FAIR-09"]
    assert "DEC-01" in first.details["not_yet_in_operation"]


def test_mlflow_holds_the_finished_run_and_the_aliases_champion_and_challenger(german: Lender) -> None:
    from mlflow import MlflowClient

    uri = german.settings.tracking_uri()
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    champion = client.get_model_version_by_alias("german_credit", "champion")
    assert client.get_model_version_by_alias("german_credit", "challenger").version >= champion.version
    assert client.get_run(champion.run_id).info.status == "FINISHED"


def test_the_champion_materialised_alone_is_promoted_again_on_its_old_evidence(german: Lender) -> None:
    before = german.ledger.entries()
    run = german.run("champion_model")
    assert run.success
    assert german.ledger.entries() == before


def test_a_challenger_made_with_its_checks_deselected_is_not_promoted_later(german: Lender) -> None:
    before = german.ledger.entries()
    assert german.run_unchecked(*REPORTS).success
    run = german.run("champion_model")
    assert not run.success
    said = run.failures["champion_model"]
    assert "evaluation/discriminates: was not run on what this challenger is made from" in said
    assert german.ledger.entries() == before


def test_a_challenger_newer_than_its_reports_is_not_promoted(german: Lender) -> None:
    before = german.ledger.entries()
    assert german.run("challenger_model").success
    run = german.run("champion_model")
    assert not run.success
    assert "was made from another challenger_model" in run.failures["champion_model"]
    assert german.ledger.entries() == before


def test_materialised_from_the_ui_the_challenger_closes_its_mlflow_run_itself(german: Lender) -> None:
    import mlflow

    assert german.run("candidate_models", "challenger_model").success
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient(tracking_uri=german.settings.tracking_uri())
    run_id = _report(german.settings.home, "challenger_model")["mlflow_run_id"]
    assert client.get_run(run_id).info.status == "FINISHED"
    candidates = _report(german.settings.home, "candidate_models")["candidates"]
    assert {client.get_run(each["mlflow_run_id"]).data.tags["mlflow.parentRunId"] for each in candidates} == {run_id}


def test_the_card_compares_the_model_with_a_scorecard_and_logistic_regression(german_home: Path) -> None:
    card = _report(german_home, "model_card")["markdown"]
    for candidate in _report(german_home, "candidate_models")["candidates"]:
        assert candidate["title"] in card
        assert f"{candidate['auc_mean']:.3f} ± {candidate['auc_sd']:.3f}" in card


def test_a_changed_file_of_the_librarys_form_is_not_loaded(german_home: Path) -> None:
    challenger = _report(german_home, "challenger_model")
    portfolio = PortfolioResource(reference="german_credit", state=str(german_home))
    path = portfolio.library_file(challenger["digest"], challenger["library"])
    original = path.read_bytes()
    try:
        path.write_bytes(original[:-1] + b"?")
        with pytest.raises(dg.Failure, match="is not the library's form of model"):
            portfolio.library_file(challenger["digest"], challenger["library"])
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("broken", [False, True])
def test_a_bento_that_fails_on_an_applicant_fails_its_check_without_quoting_the_applicant(
    german_home: Path, tmp_path: Path, broken: bool
) -> None:
    """Descriptions of checks go into Dagster's event log and into alerts."""
    settings = Settings(home=german_home, portfolio="german_credit", _env_file=None)
    folder = german_home / "artefacts" / "german_credit"
    bento = _report(german_home, "scoring_bento")
    code = Path(shutil.copytree(Path(bento["path"]) / "src", tmp_path / "src"))
    if broken:
        decide = code / "cde_serving" / "decide.py"
        decide.write_text(decide.read_text().replace("    given = ", "    raise ValueError(line)\n    given = "))

    result = bento_answers_like_the_champion(
        portfolio=PortfolioResource(reference="german_credit", state=str(german_home)),
        releases=ReleasesResource.of(settings, "german_credit"),
        bentos=BentoStore(home=str(german_home / "bentoml")),
        scoring_bento=bento | {"path": str(tmp_path)},
        holdout_set=pd.read_parquet(folder / "holdout_set.parquet"),
        loan_book=pd.read_parquet(folder / "loan_book.parquet"),
    )

    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed is not broken
    if broken:
        assert "ended with exit status 1: `python -m cde_serving.decide release` in" in str(result.description)
        assert "applied_at" not in str(result.description)


def test_why_not_names_the_refusal_in_a_screenful(german_home: Path, german: Lender) -> None:
    assert german.run("challenger_model").success
    done = run_cde(german_home, "why-not", "german_credit")
    assert done.returncode == 1
    assert "evaluation, fairness_report, " in done.stdout
    assert re.search("was made from another .*challenger_model", done.stdout)
    assert "To do: Run the whole job train_and_release." in done.stdout
    assert len(done.stdout.splitlines()) < 12


def test_a_report_edited_after_its_checks_is_refused(german: Lender) -> None:
    assert german.run().success
    path = german.settings.home / "artefacts" / "german_credit" / "evaluation.json"
    original = path.read_text()
    try:
        path.write_text(original.replace('"auc"', '"auc" '))
        run = german.run("champion_model")
        assert "evaluation.json is not the file" in run.failures["champion_model"]
    finally:
        path.write_text(original)


def test_the_same_book_trained_twice_gives_the_same_bundle_to_the_bit(german: Lender) -> None:
    first = german.ledger.current()
    assert german.run().success
    assert german.ledger.current() == first


def _bad_book(kind: str) -> pd.DataFrame:
    book = pd.read_csv(BOOK, keep_default_na=False, na_values=[""])
    match kind:
        case "missing column":
            return book.drop(columns="credit_amount")
        case "wrong type":
            return book.astype({"credit_amount": object}).assign(
                credit_amount=book["credit_amount"].astype(object).mask(book.index.isin([4, 9]), "Jane Smith")
            )
        case "duplicate ids":
            return book.assign(application_id=[f"A{max(i, 1)}" for i in range(len(book))])
        case "label not binary":
            return book.assign(creditability=book["creditability"].mask(book.index == 2, "Jane Smith"))
        case "unknown category":
            return book.assign(purpose=book["purpose"].mask(book.index == 7, "Jane Smith"))
        case "all missing":
            return book.assign(duration_in_month=np.nan)
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("missing column", "credit_amount: the column is missing"),
        ("wrong type", "credit_amount: the value is of the wrong type, 2 of them (rows 5, 10)"),
        ("duplicate ids", "application_id: the value is not unique, 2 of them (rows 1, 2)"),
        ("label not binary", "creditability: the outcome is neither 'good' nor 'bad', 1 of them (rows 3)"),
        ("unknown category", "purpose: the value must be a known category, 1 of them (rows 8)"),
        ("all missing", "duration_in_month: every value is missing, 1000 of them"),
    ],
)
def test_a_bad_loan_book_fails_by_column_count_and_rows_and_the_champion_stays(
    german_home: Path, tmp_path: Path, kind: str, told: str
) -> None:
    path = tmp_path / "book.csv"
    _bad_book(kind).to_csv(path, index=False)
    _assert_refused(german_home, path, "loan_book", told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "book.csv: is neither CSV nor Parquet"),
        (b"credit_amount,purpose\n", "book.csv: has no rows"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "book.csv: is neither CSV nor Parquet"),
        (b"PAR1 but not really", "book.csv: is neither CSV nor Parquet"),
    ],
)
def test_a_file_that_is_no_loan_book_fails_at_the_raw_asset(
    german_home: Path, tmp_path: Path, content: bytes, told: str
) -> None:
    path = tmp_path / "book.csv"
    path.write_bytes(content)
    _assert_refused(german_home, path, "credit_files", told)


def _assert_refused(home: Path, path: Path, asset: str, told: str) -> None:
    with Lender(home, "german_credit", {"path": str(path)}) as lender:
        before = lender.ledger.entries()
        run = lender.run()
        assert not run.success
        assert told in run.failures[asset]
        assert asset not in run.made
        databases = [file for file in (home / "dagster").rglob("*.db*") if b"Jane Smith" in file.read_bytes()]
        assert databases == []
        assert lender.ledger.entries() == before


def _report(home: Path, name: str) -> dict:
    return json.loads((home / "artefacts" / "german_credit" / f"{name}.json").read_text())
