"""What the search for less discriminatory models means for a promotion: the check, its facts, and a person's answer."""

import dataclasses
import datetime

import pytest

from cde_assets.governance.alternatives import NOT_SEARCHED, _answers
from cde_checks.governance import alternative_is_considered
from cde_domain.clock import utc_now
from cde_domain.governance.alternatives_facts import alternatives_facts
from cde_domain.governance.rulebook import Rulebook
from cde_domain.governance.verdicts import RuleResult, Status, evaluate
from cde_domain.portfolio import DeclinedAlternative, Portfolio, PortfolioError, Thresholds, load_portfolio

TODAY = utc_now().date()
DAY = datetime.timedelta(days=1)
GERMAN = load_portfolio("german_credit")


def _report(finding: str, *, tried: int = 24, unanswered: tuple[str, ...] = ()) -> dict:
    return {
        **NOT_SEARCHED,
        "finding": finding,
        "reason": "a reason",
        "n_candidates": tried,
        "min_candidates": 20,
        "unanswered": list(unanswered),
    }


def _rule(report: dict) -> RuleResult:
    thresholds = {
        "min_auc": 0.7,
        "max_calibration_error": 0.03,
        "max_single_feature_auc": 0.9,
        "min_adverse_impact_ratio": 0.8,
    }
    results = evaluate(Rulebook.read(), alternatives_facts(report), "IN", thresholds=thresholds, today=TODAY)
    return next(result for result in results if result.id == "FAIR-08")


@pytest.mark.parametrize(
    ("report", "passed", "status", "said"),
    [
        (_report("refuted"), True, Status.PASS, "refuted: a reason"),
        (_report("found"), True, Status.PASS, "found: a reason"),  # and every one declined
        (_report("found", unanswered=("without district",)), False, Status.FAIL, "without district"),
        (_report("insufficient_data"), True, Status.INSUFFICIENT_DATA, "insufficient data: a reason"),
        (_report("refuted", tried=19), False, Status.FAIL, "only 19 of 20 candidates were tried"),
        (_report("insufficient_data", tried=0), False, Status.FAIL, "only 0 of 20 candidates were tried: a reason"),
        (_report("not_applicable", tried=0), True, Status.NOT_APPLICABLE, "not applicable: a reason"),
    ],
)
def test_the_check_and_the_rule_say_the_same_of_a_search(report: dict, passed: bool, status: Status, said: str) -> None:
    result = alternative_is_considered(report)

    assert result.passed is passed
    assert said in str(result.description)
    assert (_rule(report).status, _rule(report).blocks) == (status, False)


def test_a_search_that_never_ran_fails_its_rule() -> None:
    results = evaluate(Rulebook.read(), [], "US", thresholds=dataclasses.asdict(Thresholds()), today=TODAY)

    assert next(result for result in results if result.id == "FAIR-08").status is Status.FAIL


def _declined(**changes: object) -> DeclinedAlternative:
    given = {
        "candidates": ("without district",),
        "name": "Asha Rao",
        "role": "head of model risk",
        "date": TODAY - 30 * DAY,
        "expires": TODAY + 365 * DAY,
        "reason": "the district pays for the branch that serves it",
    }
    return DeclinedAlternative(**{**given, **changes})  # type: ignore[arg-type]


FOUND = {
    "finding": "found",
    "found": ["without district", "max_depth=1"],
    "groups": [],
    "candidates": [{"name": name, "adopt": "do it"} for name in ("without district", "max_depth=1")],
}


def _answered(*answers: DeclinedAlternative) -> list[str]:
    portfolio: Portfolio = dataclasses.replace(GERMAN, declined_alternatives=answers)
    return _answers(portfolio, FOUND, TODAY)["unanswered"]


def test_only_what_a_named_person_declined_is_answered() -> None:
    assert _answered() == ["without district", "max_depth=1"]
    assert _answered(_declined()) == ["max_depth=1"]
    assert _answered(_declined(candidates=("without district", "max_depth=1"))) == []
    assert _answered(_declined(candidates=("without distirct",))) == ["without district", "max_depth=1"]


def test_an_answer_that_expired_leaves_the_question_open() -> None:
    assert _answered(_declined(expires=TODAY - DAY)) == ["without district", "max_depth=1"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"candidates": ()}, "needs `candidates`"),
        ({"candidates": "without district"}, "needs `candidates`"),
        ({"name": ""}, "needs the name, the role and the reason"),
        ({"reason": "no"}, "needs the name, the role and the reason"),
        ({"expires": TODAY - 30 * DAY}, "expires before it begins"),
    ],
)
def test_an_answer_that_is_none_is_refused(changes: dict, told: str) -> None:
    with pytest.raises(PortfolioError, match=told):
        _declined(**changes)


def test_a_portfolio_that_asks_for_too_few_or_tolerates_nonsense_is_refused_by_name() -> None:
    with pytest.raises(PortfolioError, match="german_credit has alternatives=19: at least 20 are searched"):
        dataclasses.replace(GERMAN, alternatives=19)
    for field in ("alternative_auc_tolerance", "alternative_min_gain"):
        for value in (0.0, -0.1, 1.0, float("nan")):
            with pytest.raises(PortfolioError, match=f"german_credit: {field} must lie between 0 and 1"):
                dataclasses.replace(GERMAN, thresholds=Thresholds(**{field: value}))
