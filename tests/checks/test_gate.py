"""The gate reads the event log: only a passed check on exactly what the challenger was made from lets it through."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
import pytest

from cde_checks.judgement import EVIDENCE, REPORTS, judged, log_refusals, required_checks
from cde_checks.refusal import Refusal
from cde_domain.governance.card import OF_A_MODEL

PORTFOLIO = "toy_loans"
MADE_FROM = {
    "loan_book": (),
    "feature_table": ("loan_book",),
    "holdout_set": ("feature_table",),
    "challenger_model": ("feature_table",),
    "evaluation": ("challenger_model", "holdout_set", "loan_book"),
    "fairness_report": ("challenger_model", "loan_book"),
    "alternatives_search": ("challenger_model", "feature_table", "loan_book"),
    "explanation_report": ("challenger_model", "holdout_set", "loan_book"),
    "latency_report": ("challenger_model", "holdout_set"),
    "compliance_report": ("evaluation", "fairness_report", "alternatives_search", "explanation_report"),
    "model_card": OF_A_MODEL,
    "evidence_pack": ("model_card",),
}
RERUN = "Run the whole job train_and_release"


def _asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, key_prefix=PORTFOLIO, deps=[dg.AssetKey([PORTFOLIO, dep]) for dep in MADE_FROM[name]])
    def made() -> None:
        """Nothing but its materialisation."""

    return made


@dataclass
class Toy:
    """A graph with the names of the real one and nothing in it, whose checks say what a test wants them to say."""

    instance: dg.DagsterInstance
    failing: dict[str, dg.AssetCheckSeverity] = field(default_factory=dict)

    def run(self, *assets: str, checks: tuple[str, ...] | None = None) -> None:
        """Materialise assets with their checks, or with some of them (of other assets too)."""
        chosen = dg.AssetSelection.assets(*(dg.AssetKey([PORTFOLIO, name]) for name in assets or MADE_FROM))
        if checks is not None:
            keys = [dg.AssetCheckKey(dg.AssetKey([PORTFOLIO, of]), name) for of, name in required_checks()]
            wanted = dg.AssetSelection.checks(*(key for key in keys if key.name in checks))
            chosen = chosen.without_checks() | wanted if assets or not checks else wanted
        definitions = [_asset(name) for name in MADE_FROM] + [self._check(of, name) for of, name in required_checks()]
        done = dg.materialize(
            definitions,
            selection=chosen,
            instance=self.instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        assert done.success

    def _check(self, asset: str, name: str) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=dg.AssetKey([PORTFOLIO, asset]), name=name)
        def said() -> dg.AssetCheckResult:
            severity = self.failing.get(name)
            return dg.AssetCheckResult(
                passed=severity is None,
                severity=severity or dg.AssetCheckSeverity.ERROR,
                description=f"{name} is not true" if severity else None,
            )

        return said

    def refused(self) -> list[str]:
        """What the gate says."""
        return [str(refusal) for refusal in said_against(self.instance, PORTFOLIO)]


def said_against(instance: dg.DagsterInstance, portfolio: str) -> list[Refusal]:
    """What the event log says against the latest challenger of a portfolio."""
    return log_refusals(instance, portfolio, judged(instance, portfolio, (*REPORTS, EVIDENCE)))


@pytest.fixture
def toy() -> Iterator[Toy]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Toy(instance)


def test_a_challenger_with_all_its_checks_passed_may_be_promoted(toy: Toy):
    toy.run()

    assert toy.refused() == []


def test_nothing_is_promoted_before_anything_was_made(toy: Toy):
    assert said_against(toy.instance, PORTFOLIO) == [Refusal(REPORTS[0], "was never materialised", RERUN)]


def test_a_report_that_is_missing_is_named(toy: Toy):
    toy.run(*(name for name in MADE_FROM if name != "model_card"))

    assert toy.refused() == [f"model_card: was never materialised. {RERUN}."]


@pytest.mark.parametrize("severity", list(dg.AssetCheckSeverity))
def test_a_failed_check_is_refused_whatever_its_severity(severity: dg.AssetCheckSeverity, toy: Toy):
    toy.failing["four_fifths_holds"] = severity
    toy.run()

    assert toy.refused() == [
        "fairness_report/four_fifths_holds: failed (four_fifths_holds is not true). "
        "Mend what it names and run train_and_release again."
    ]


def test_every_check_is_asked_for_and_an_earlier_run_does_not_speak_for_a_later_one(toy: Toy):
    toy.run()
    toy.run(*MADE_FROM, checks=("is_calibrated", "schema_holds"))

    assert toy.refused() == [
        f"{asset}/{check}: was not run on what this challenger is made from. {RERUN}."
        for asset, check in required_checks()
        if check not in ("is_calibrated", "schema_holds")
    ]


def test_a_check_that_passed_before_and_fails_now_is_refused(toy: Toy):
    toy.run()
    toy.failing["is_calibrated"] = dg.AssetCheckSeverity.ERROR
    toy.run(checks=("is_calibrated",))

    assert [said.split(":")[0] for said in toy.refused()] == ["evaluation/is_calibrated"]


def test_a_check_that_is_run_again_and_passes_is_believed(toy: Toy):
    toy.failing["is_calibrated"] = dg.AssetCheckSeverity.ERROR
    toy.run()
    toy.failing.clear()
    toy.run(checks=("is_calibrated",))

    assert toy.refused() == []


def test_a_loan_book_that_came_later_neither_helps_nor_hinders(toy: Toy):
    toy.run()
    toy.failing["schema_holds"] = dg.AssetCheckSeverity.ERROR
    toy.run("loan_book")

    assert toy.refused() == []


def test_a_good_book_that_came_later_does_not_excuse_the_one_that_was_used(toy: Toy):
    toy.failing["schema_holds"] = dg.AssetCheckSeverity.ERROR
    toy.run()
    toy.failing.clear()
    toy.run("loan_book")

    assert [said.split(":")[0] for said in toy.refused()] == ["loan_book/schema_holds"]


def test_a_report_about_another_loan_book_is_refused(toy: Toy):
    toy.run()
    toy.run("loan_book")
    toy.run("fairness_report")

    assert f"fairness_report: was made from another loan_book than the rest of the evidence. {RERUN}." in toy.refused()


def test_a_challenger_without_new_reports_is_refused(toy: Toy):
    toy.run()
    toy.run("challenger_model")

    said = toy.refused()

    assert any("was made from another challenger_model than the rest of the evidence" in refusal for refusal in said)


def test_a_card_of_older_reports_is_refused(toy: Toy):
    toy.run()
    toy.run("evaluation")

    assert f"model_card: was made from another evaluation than the rest of the evidence. {RERUN}." in toy.refused()


def test_another_portfolio_cannot_lend_its_evidence(toy: Toy):
    toy.run()

    assert said_against(toy.instance, "other_loans") == [Refusal(REPORTS[0], "was never materialised", RERUN)]
