"""Tests for `cde_serving.records.versions`: what a record says of the code that decided."""

import sys

from cde_serving.records.versions import deciding_files
from tests.serving.helpers import Desk

REPORTS = ("drift.py", "live.py", "verdict.py", "replaying.py")


def test_a_change_to_a_report_makes_no_decision_one_of_other_code() -> None:
    """Reports about decisions are not among the files whose digest a record bears."""
    assert not {path.name for path in deciding_files()} & set(REPORTS)


def test_all_that_decides_is_among_the_files(desk: Desk) -> None:
    """Engine, policy, features, model and calibration, and each is loaded by a service that decides."""
    desk.score()
    files = {str(path) for path in deciding_files()}

    decided_with = [sys.modules[f"cde_domain.{name}"].__file__ for name in (
        "decisions.engine", "decisions.policy", "decisions.review", "features.columns", "features.feature",
        "model.compiled", "model.scoring_model", "application", "release",
    )]  # fmt: skip
    assert set(decided_with) <= files
