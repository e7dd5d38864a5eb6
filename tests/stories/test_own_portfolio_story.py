"""A lender's own portfolio, written as the documentation shows, in a folder outside the repository."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.lender import ROOT, run_cde

GUIDE = ROOT / "docs" / "bring-your-own-portfolio.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's module and policy, with a loan book of other columns beside them."""
    folder = tmp_path_factory.mktemp("lending")
    guide = GUIDE.read_text(encoding="utf-8")
    (folder / "car_loans.py").write_text(_block(guide, "python"), encoding="utf-8")
    (folder / "policy.yaml").write_text(_block(guide, "yaml"), encoding="utf-8")
    _loan_book(1500).to_csv(folder / "car_loans.csv", index=False)
    return folder


def _block(guide: str, language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", guide, flags=re.DOTALL)
    return str(block)


def _loan_book(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(5)
    salary = random.lognormal(7.8, 0.4, rows)
    price = random.lognormal(9.1, 0.5, rows)
    upfront = price * random.uniform(0, 0.5, rows)
    contract = random.choice(["permanent", "temporary", "self_employed"], rows, p=[0.7, 0.2, 0.1])
    margin = 3.0 - 0.5 * price / salary + 3 * upfront / price - 0.8 * (contract == "temporary")
    paid = random.random(rows) < 1 / (1 + np.exp(-margin))
    return pd.DataFrame(
        {
            "salary": salary.round(2),
            "price": price.round(2),
            "upfront": upfront.round(2),
            "contract": contract,
            "years_at_address": np.where(random.random(rows) < 0.2, np.nan, random.integers(0, 30, rows)),
            "sex": random.choice(["female", "male"], rows),
            "state": np.where(paid, "paid", "lost"),
        }
    )


@pytest.fixture(scope="module")
def demo(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The demo of that portfolio, and its home."""
    home = tmp_path_factory.mktemp("home")
    return home, run_cde(home, "demo", "car_loans:PORTFOLIO", PYTHONPATH=str(folder))


def test_a_portfolio_outside_the_repository_goes_all_the_way_by_import_path(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    home, done = demo
    assert done.returncode == 0, done.stdout + done.stderr
    decision = json.loads((home / "demo" / "decision.json").read_text())
    assert decision["portfolio"] == "car_loans"
    assert decision["explanation"]["contributions"].keys() >= {"price_to_salary", "contract"}


def test_its_module_and_policy_travel_hashed_in_the_bundle(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    home, _ = demo
    (bundle,) = (home / "car_loans" / "bundles").iterdir()
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    assert {"portfolio/car_loans.py", "portfolio/policy.yaml", "policy.yaml"} <= files.keys()


def test_nothing_in_the_repository_changes(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert demo[1].returncode == 0
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "car_loans" not in listed.stdout


def test_an_unknown_portfolio_is_misuse_and_the_message_lists_the_known_ones(tmp_path: Path) -> None:
    done = run_cde(tmp_path, "demo", "germna_credit")
    assert done.returncode == 2
    assert "german_credit" in done.stderr


def test_an_unknown_option_is_misuse_and_named(tmp_path: Path) -> None:
    done = run_cde(tmp_path, "demo", "german_credit", "--option", "rows=5")
    assert done.returncode == 2
    assert "rows" in done.stderr
