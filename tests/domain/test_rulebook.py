"""The rulebook: what each status means, what is refused by name, and that nothing open ever reads as a pass."""

import datetime
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from cde_domain.governance.attestations import Attestation, AttestationError
from cde_domain.governance.facts import METRICS, Fact, FactError
from cde_domain.governance.rulebook import FILE, LegalStatus, OfPortfolio, Phase, Rulebook, RulebookError
from cde_domain.governance.verdicts import RuleResult, Status, evaluate

TODAY = datetime.date(2026, 12, 1)
DOCS = Path(__file__).parents[2] / "docs"


def _rulebook(tmp_path: Path, *, check: dict | None = None, **changes: object) -> Path:
    """A rulebook of one rule on the AUC."""
    rule = {
        "id": "PERF-01",
        "title": "Discriminates",
        "phase": "promotion",
        "severity": "block",
        "jurisdictions": ["IN", "EU"],
        "legal_status": "project_default",
        "sources": ["a source"],
        "artefact": "evaluation.json",
        "on_missing": "fail",
        "checks": [{"metric": "auc", "op": ">=", "threshold": 0.7, **(check or {})}],
        **changes,
    }
    path = tmp_path / "rulebook.yaml"
    head = {"version": "1", "sources_checked_on": "2026-11-22", "stale_after_days": 180}
    path.write_text(yaml.safe_dump({**head, "rules": [rule]}), encoding="utf-8")
    return path


def _auc(value: float | None, low: float = 0.0, high: float = 1.0, **more: object) -> Fact:
    return Fact("auc", "evaluation.json", value, None if value is None else (low, high), **more)  # type: ignore[arg-type]


def _one(path: Path, *facts: Fact, jurisdiction: str = "IN", **more: object) -> RuleResult:
    arguments = {"thresholds": {"min_auc": 0.75}, "today": TODAY, **more}
    (result,) = evaluate(Rulebook.read(path), facts, jurisdiction, **arguments)  # type: ignore[arg-type]
    return result


def test_an_estimate_fails_only_if_its_whole_interval_lies_beyond_the_threshold(tmp_path: Path) -> None:
    path = _rulebook(tmp_path)
    assert _one(path, _auc(0.72, 0.65, 0.78)).status is Status.PASS
    assert _one(path, _auc(0.68, 0.62, 0.74)).status is Status.WARN
    assert _one(path, _auc(0.60, 0.52, 0.69)).status is Status.FAIL


def test_a_slope_between_two_bounds_fails_on_either_side(tmp_path: Path) -> None:
    path = _rulebook(tmp_path, check={"metric": "calibration_slope", "op": "between", "threshold": [0.8, 1.2]})
    slopes = ((0.7, 0.6, 0.79), (1.4, 1.06, 1.7), (1.4, 1.21, 1.7), (1.0, 0.7, 1.3))
    facts = [Fact("calibration_slope", "evaluation.json", value, (low, high)) for value, low, high in slopes]
    assert [_one(path, fact).status for fact in facts] == [Status.FAIL, Status.WARN, Status.FAIL, Status.PASS]


def test_a_count_stands_for_itself(tmp_path: Path) -> None:
    path = _rulebook(tmp_path, check={"metric": "n_protected_inputs", "op": "==", "threshold": 0})
    assert _one(path, Fact("n_protected_inputs", "book", 0.0)).status is Status.PASS
    failed = _one(path, Fact("n_protected_inputs", "book", 1.0))
    assert (failed.status, failed.blocks) == (Status.FAIL, True)
    assert failed.number() == "n_protected_inputs 1, asked == 0"


def test_a_rule_that_only_warns_can_fail_without_blocking(tmp_path: Path) -> None:
    result = _one(_rulebook(tmp_path, severity="warn"), _auc(0.5, 0.4, 0.6))
    assert (result.status, result.blocks) == (Status.FAIL, False)


def test_a_breach_that_may_only_warn_warns(tmp_path: Path) -> None:
    assert _one(_rulebook(tmp_path, check={"on_breach": "warn"}), _auc(0.5, 0.4, 0.6)).status is Status.WARN


@pytest.mark.parametrize("value", [0.8, 0.6, None])
def test_insufficient_data_is_never_a_pass(tmp_path: Path, value: float | None) -> None:
    result = _one(_rulebook(tmp_path), _auc(value, 0.5, 0.9, sufficient=False))
    assert (result.status, result.blocks) == (Status.INSUFFICIENT_DATA, False)


def test_a_significant_failure_fails_however_small_the_group(tmp_path: Path) -> None:
    assert _one(_rulebook(tmp_path), _auc(0.5, 0.4, 0.6, sufficient=False)).status is Status.FAIL


def test_a_missing_fact_fails_where_its_artefact_exists_and_is_open_where_it_does_not(tmp_path: Path) -> None:
    missing = _one(_rulebook(tmp_path))
    assert (missing.status, missing.why) == (Status.FAIL, "missing from evaluation.json")
    later = _one(_rulebook(tmp_path, on_missing="not_yet_measured"))
    assert (later.status, later.blocks) == (Status.NOT_YET_MEASURED, False)


def test_a_rule_of_operation_is_open_until_measured_and_blocks_once_it_failed(tmp_path: Path) -> None:
    path = _rulebook(tmp_path, phase="operation", on_missing="not_yet_measured")
    assert _one(path).status is Status.NOT_YET_MEASURED
    assert _one(path, _auc(0.5, 0.4, 0.6)).blocks
    with pytest.raises(RulebookError, match="PERF-01 is a rule of operation, which cannot fail"):
        Rulebook.read(_rulebook(tmp_path, phase="operation"))


def test_what_a_portfolio_lacks_is_not_applicable_with_its_reason(tmp_path: Path) -> None:
    result = _one(_rulebook(tmp_path), _auc(None, not_applicable="the book has no dates"))
    assert (result.status, result.why) == (Status.NOT_APPLICABLE, "the book has no dates")


def test_the_worst_condition_decides_and_an_open_one_is_no_pass(tmp_path: Path) -> None:
    checks = [
        {"metric": "auc", "op": ">=", "threshold": 0.7},
        {"metric": "edge_cases_failed", "op": "==", "threshold": 0, "on_missing": "not_yet_measured"},
    ]
    path = _rulebook(tmp_path, checks=checks)
    assert _one(path, _auc(0.9)).status is Status.NOT_YET_MEASURED
    assert _one(path, _auc(0.9)).open_checks == 1
    assert _one(path, _auc(0.5, 0.4, 0.6)).status is Status.FAIL


TWO_CONDITIONS = [
    {"metric": "share_labels_matured", "op": "==", "threshold": 1.0},
    {"metric": "n_applicants_in_both", "op": "==", "threshold": 0},
]
UNDATED = Fact("share_labels_matured", "book", not_applicable="the book has no dates")


def test_a_pass_says_how_many_conditions_do_not_apply(tmp_path: Path) -> None:
    result = _one(_rulebook(tmp_path, checks=TWO_CONDITIONS), UNDATED, Fact("n_applicants_in_both", "book", 0.0))
    assert result.said == "pass; 1 of 2 conditions do not apply"
    assert (result.as_json()["said"], result.as_json()["inapplicable_checks"]) == (result.said, 1)


def test_a_rule_does_not_pass_by_the_rest_where_what_it_is_named_for_does_not_apply(tmp_path: Path) -> None:
    named, other = TWO_CONDITIONS
    path = _rulebook(tmp_path, checks=[{**named, "essential": True}, other])
    passed = _one(path, UNDATED, Fact("n_applicants_in_both", "book", 0.0))
    assert (passed.status, passed.why) == (Status.NOT_APPLICABLE, "the book has no dates")
    assert _one(path, UNDATED, Fact("n_applicants_in_both", "book", 1.0)).status is Status.FAIL


@pytest.mark.parametrize(
    ("rule", "inapplicable", "held"),
    [
        (
            "DATA-04",
            ("days_between_train_end_and_holdout_start", "share_labels_matured"),
            {"n_applicants_in_both": 0.0, "max_single_feature_auc": 0.6},
        ),
        (
            "FAIR-07",
            ("decisions_changed_by_swapping_protected",),
            {"n_distinct_threshold_sets": 1.0, "randomised_predictor": False},
        ),
    ],
)
def test_what_the_book_cannot_show_is_not_applicable_and_no_pass(
    rule: str, inapplicable: tuple[str, ...], held: dict[str, float | bool]
) -> None:
    facts = [Fact(metric, "book", not_applicable="the book has none") for metric in inapplicable]
    facts += [Fact(metric, "book", value) for metric, value in held.items()]
    only = SHIPPED.model_copy(update={"rules": tuple(one for one in SHIPPED.rules if one.id == rule)})
    (result,) = evaluate(only, facts, "IN", thresholds={"max_single_feature_auc": 0.9}, today=TODAY)
    assert result.status is Status.NOT_APPLICABLE


def test_a_value_with_too_little_data_does_not_read_as_held(tmp_path: Path) -> None:
    result = _one(_rulebook(tmp_path), _auc(0.8, 0.5, 0.9, sufficient=False))
    assert result.number() == "auc: too little data to say: 0.8000 (0.5000 to 0.9000), asked >= 0.7000"
    assert result.plain() == "Area under the ROC curve: too little data to say: 0.8 (0.5 to 0.9), asked is at least 0.7"


def test_a_rule_for_elsewhere_is_kept_and_says_for_whom_it_is(tmp_path: Path) -> None:
    result = _one(_rulebook(tmp_path), _auc(0.1, 0.0, 0.2), jurisdiction="US")
    assert (result.status, result.why) == (Status.NOT_APPLICABLE, "a rule for IN, EU")


def test_a_condition_can_be_for_fewer_countries_than_its_rule(tmp_path: Path) -> None:
    path = _rulebook(tmp_path, check={"jurisdictions": ["EU"]})
    assert _one(path, _auc(0.1, 0.0, 0.2), jurisdiction="IN").status is Status.NOT_APPLICABLE
    assert _one(path, _auc(0.1, 0.0, 0.2), jurisdiction="EU").status is Status.FAIL


def test_a_threshold_can_be_the_portfolios_own(tmp_path: Path) -> None:
    path = _rulebook(tmp_path, check={"threshold": {"portfolio": "min_auc"}})
    assert _one(path, _auc(0.72, 0.70, 0.74)).status is Status.FAIL
    with pytest.raises(RulebookError, match="a portfolio has no threshold 'min_acu'"):
        Rulebook.read(_rulebook(tmp_path, check={"threshold": {"portfolio": "min_acu"}}))


@pytest.mark.parametrize(
    ("check", "changes", "told"),
    [
        ({"metric": "auk"}, {}, "rule PERF-01 asks for unknown metric 'auk'"),
        ({"op": "~"}, {}, "rule PERF-01 checks.0.op"),
        ({"op": "between"}, {}, r"auc: `between` goes with \[low, high\]"),
        ({"op": "<=", "threshold": True}, {}, "can only be compared with =="),
        ({"treshold": 1}, {}, "rule PERF-01 checks.0.treshold"),
        ({"threshold": float("nan")}, {}, "threshold"),
        ({}, {"severity": "blocking"}, "rule PERF-01 severity"),
        ({}, {"legal_status": "law"}, "rule PERF-01 legal_status"),
        ({}, {"jurisdictions": ["UK"]}, "rule PERF-01 jurisdictions"),
        ({}, {"sources": []}, "rule PERF-01 sources"),
        ({}, {"owner": "me"}, "rule PERF-01 owner"),
    ],
)
def test_a_bad_rulebook_is_refused_by_file_and_field(tmp_path: Path, check: dict, changes: dict, told: str) -> None:
    with pytest.raises(RulebookError, match=told) as refused:
        Rulebook.read(_rulebook(tmp_path, check=check, **changes))
    assert str(refused.value).startswith("rulebook.yaml: ")


def test_a_nan_or_an_unknown_metric_in_a_report_is_refused_by_name() -> None:
    with pytest.raises(FactError, match=r"evaluation\.json: auc is not a finite number"):
        _auc(float("nan"))
    with pytest.raises(FactError, match=r"evaluation\.json: auc of sex=female is not a finite number"):
        _auc(0.7, float("nan"), subject="sex=female")
    with pytest.raises(FactError, match="there is no metric 'acu'"):
        Fact("acu", "evaluation.json", 0.7)
    with pytest.raises(FactError, match="has no value, and nothing says why"):
        Fact("auc", "evaluation.json")


def test_a_word_where_a_number_is_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FactError, match="auc is a word, and its rule asks for a number"):
        _one(_rulebook(tmp_path), Fact("auc", "evaluation.json", "good"))


ATTESTED = {
    "rule": "PERF-01",
    "name": "Asha Rao",
    "role": "head of model risk",
    "date": "2026-11-30",
    "expires": "2027-11-30",
    "statement": "Validated by a team that did not build it.",
}


def _attest(**changes: str) -> tuple[Attestation, ...]:
    return (Attestation.model_validate(ATTESTED | changes),)


def test_what_no_program_can_decide_is_attested_by_a_named_person(tmp_path: Path) -> None:
    path = _rulebook(tmp_path, on_missing="not_yet_measured", attestable=True)
    result = _one(path, attestations=_attest())
    assert result.status is Status.ATTESTED
    assert (result.attested_by, result.attested_on) == ("Asha Rao, head of model risk", "2026-11-30")


def test_no_signature_turns_a_measured_failure_into_anything_else(tmp_path: Path) -> None:
    path = _rulebook(tmp_path, on_missing="not_yet_measured", attestable=True)
    assert _one(path, _auc(0.5, 0.4, 0.6), attestations=_attest()).status is Status.FAIL


def test_an_expired_or_future_attestation_leaves_the_rule_open(tmp_path: Path) -> None:
    path = _rulebook(tmp_path, on_missing="not_yet_measured", attestable=True)
    for dates in ({"date": "2025-12-01", "expires": "2026-12-01"}, {"date": "2026-12-02"}):
        assert _one(path, attestations=_attest(**dates)).status is Status.NOT_YET_MEASURED


@pytest.mark.parametrize(("rule", "told"), [("PERF-01", "is decided by measurement"), ("PERF-99", "is no rule")])
def test_an_attestation_of_a_rule_that_is_measured_or_unknown_is_refused(tmp_path: Path, rule: str, told: str) -> None:
    with pytest.raises(AttestationError, match=f"{rule} {told}"):
        _one(_rulebook(tmp_path), attestations=_attest(rule=rule))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "name"),
        ({"statement": "Yes."}, "statement"),
        ({"expires": "2026-11-30"}, "expires before it begins"),
        ({"expires": "2028-11-30"}, "lasts longer than 366 days"),
    ],
)
def test_an_attestation_names_who_says_what_and_for_at_most_a_year(changes: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        _attest(**changes)


SHIPPED = Rulebook.read()


def test_the_shipped_rulebook_keeps_every_rule_and_every_metric_has_a_rule() -> None:
    ids = {rule.id for rule in SHIPPED.rules}
    least = {"DATA": 6, "PERF": 5, "FAIR": 8, "EXPL": 5, "DEC": 5, "PRIV": 3, "GOV": 3}
    assert {f"{kind}-{number:02}" for kind, most in least.items() for number in range(1, most + 1)} <= ids
    assert {check.metric for rule in SHIPPED.rules for check in rule.checks} == METRICS.keys()


def test_without_any_fact_nothing_passes_and_every_rule_of_operation_is_open() -> None:
    thresholds = {"min_auc": 0.7, "max_calibration_error": 0.03, "max_single_feature_auc": 0.9}
    results = evaluate(SHIPPED, [], "IN", thresholds=thresholds | {"min_adverse_impact_ratio": 0.8}, today=TODAY)
    assert not {Status.PASS, Status.ATTESTED} & {result.status for result in results}
    operation = [result for result in results if result.phase is Phase.OPERATION and result.checks]
    assert {result.status for result in operation} == {Status.NOT_YET_MEASURED}


def test_the_rulebook_goes_stale_after_half_a_year() -> None:
    assert not SHIPPED.is_stale(datetime.date(2027, 5, 21))
    assert SHIPPED.is_stale(datetime.date(2027, 5, 22))


def test_the_inventory_rule_claims_no_signature_that_it_does_not_see() -> None:
    (rule,) = (rule for rule in SHIPPED.rules if rule.id == "GOV-01")
    assert rule.title == "Inventory entry, tier and separated roles stated"


def test_every_source_of_a_rule_can_be_looked_up() -> None:
    assert not [source for rule in SHIPPED.rules for source in rule.sources if source.startswith("seed")]


def test_no_rule_forbids_automatic_promotion() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert "auto_promoted_retrains" not in text
    assert "promotions_without_configured_authority" in text


def test_the_docs_list_every_threshold_that_is_the_projects_own_choice() -> None:
    listed = (DOCS / "governance.md").read_text(encoding="utf-8")
    for rule in SHIPPED.rules:
        for check in rule.checks:
            if (check.threshold_status or rule.legal_status) is LegalStatus.PROJECT_DEFAULT:
                threshold = check.threshold
                said = threshold.portfolio if isinstance(threshold, OfPortfolio) else threshold
                said = " and ".join(f"{bound:g}" for bound in said) if isinstance(said, tuple) else said
                said = f"{said:g}" if type(said) is float else str(said).lower()
                row = rf"\| {rule.id} \| `{check.metric}` \| {re.escape(check.op)} {re.escape(said)} \|"
                assert re.search(row, listed), f"{rule.id} {check.metric} {check.op} {said}"
