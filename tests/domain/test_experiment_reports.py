"""Tests for what an experiment says: which differences matter, and what follows."""

import itertools
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from cde_domain.decisions.experiments.service import Counters
from cde_domain.decisions.experiments.verdict import Verdict
from cde_domain.portfolio import ExperimentRules, Portfolio, PortfolioError, ProtectedAttribute
from tests.experiments import CHALLENGER, START, WEEK, Model, outcomes, report_on, run_its_course, terms, traffic, week


def test_an_equal_challenger_grows_to_all_customers_and_is_promoted(lending: Portfolio):
    """The ramp is walked to its end, no step shorter than three days."""
    history, report = run_its_course(lending, Model(), seed=1)

    assert [weight for _, weight in history] == [0.05, 0.25, 0.5, 1.0]
    assert all(later - earlier >= 3 for (earlier, _), (later, _) in itertools.pairwise(history))
    assert report.judgement is not None
    assert report.judgement.verdict is Verdict.PROMOTE
    assert report.assignment.as_declared


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (Model(approves=0.98), "approval"),
        (Model(approves=0.3), "approval"),
        (Model(falls_back=0.3), "fallback"),
        (Model(expects=0.4), "expected_bad_rate"),
    ],
)
def test_a_harmful_challenger_is_stopped_at_its_first_customers(lending: Portfolio, harm: Model, what: str):
    """Within days and at one customer in twenty, before it decides for more."""
    history, report = run_its_course(lending, harm, seed=2)

    assert [weight for _, weight in history] == [0.05]
    assert report.judgement is not None
    assert report.judgement.verdict is Verdict.STOP
    assert what in {breach.what for breach in report.judgement.breaches}


@pytest.mark.parametrize(("champion", "challenger"), [(0.05, 0.0), (0.94, 1.0)])
def test_a_challenger_that_approves_nobody_or_everybody_is_stopped_however_near_the_champion_is(
    lending: Portfolio, champion: float, challenger: float
):
    """The change is within what is tolerated; the portfolio's alarms bound the rate itself."""
    decisions = week(customers=2000, champion=Model(approves=champion), challenger=Model(approves=challenger))

    judgement = report_on(decisions, lending).judgement

    assert judgement.verdict is Verdict.STOP
    assert [breach.what for breach in judgement.breaches] == ["approval_rate"]
    assert f"the challenger approves {challenger:.1%} of" in judgement.reasons[0]


def test_not_all_customers_are_given_before_a_rate_like_that_is_ruled_out(lending: Portfolio):
    """Some of them are: whether 4 % are approved or 1 % is hard to see on three hundred."""
    few = week(customers=600, champion=Model(approves=0.05), challenger=Model(approves=0.04))
    wide = {"max_approval_change": 0.3, "max_score_shift": 0.5, "max_expected_bad_rate_rise": 0.9}
    verdicts = []
    for ramp in ((0.5, 0.6), (0.5, 1.0)):
        rules = replace(lending.experiment, ramp=ramp, max_fallback_rise=0.5, **wide)
        verdicts.append(report_on(few, replace(lending, experiment=rules)).judgement)

    assert [one.verdict for one in verdicts] == [Verdict.RAMP, Verdict.HOLD]
    assert "a rate out of it cannot be ruled out" in verdicts[1].reasons[0]


def test_loans_that_fail_more_often_stop_it_once_their_outcomes_are_mature(lending: Portfolio):
    """The scores promised the same; only outcomes can tell."""
    decisions = week(customers=4000, challenger=Model(fails=0.35))

    before, after = report_on(decisions, lending), report_on(decisions, lending, labelled=outcomes(decisions))

    assert before.judgement.verdict is Verdict.RAMP
    assert after.judgement.verdict is Verdict.STOP
    assert ["bad_rate"] == [breach.what for breach in after.judgement.breaches]


def test_a_promotion_waits_for_as_many_outcomes_as_the_lender_asks_for(lending: Portfolio):
    """Where none are asked for it does not."""
    all_ramps = replace(lending.experiment, ramp=(0.5,), max_bad_rate_rise=0.2)
    patient = replace(lending, experiment=replace(all_ramps, min_outcomes=500))
    decisions = week(customers=4000)

    assert report_on(decisions, replace(lending, experiment=all_ramps)).judgement.verdict is Verdict.PROMOTE
    waiting = report_on(decisions, patient).judgement
    assert waiting.verdict is Verdict.HOLD
    assert "0 mature outcomes of the challenger's loans, of 500 needed" in waiting.reasons
    assert report_on(decisions, patient, labelled=outcomes(decisions)).judgement.verdict is Verdict.PROMOTE


def stopped(decisions: pd.DataFrame, during: np.ndarray) -> pd.DataFrame:
    """What automatic decisions become while they are stopped; those for a person anyway keep their reason."""
    overruled = during & (decisions["decision"] != "MANUAL_REVIEW").to_numpy()
    sent = decisions.copy()
    sent.loc[overruled, ["decision", "decided_by"]] = "MANUAL_REVIEW", "fallback"
    sent["reason_codes"] = [
        ["AUTOMATIC_DECISIONS_STOPPED"] if one else codes
        for one, codes in zip(overruled, sent["reason_codes"], strict=True)
    ]
    return sent


def test_what_is_stopped_by_hand_is_no_evidence(lending: Portfolio):
    """The challenger has a larger share when automatic decisions are stopped, and is not to blame for it."""
    of = terms(0.05, 0.5)
    decisions = traffic(of, START, 13.9, 3000, np.random.default_rng(3))
    late = (decisions["applied_at"] > pd.Timestamp(START + WEEK)).to_numpy()

    report = report_on(stopped(decisions, late), lending, of, now=START + 2 * WEEK)

    assert report.judgement.verdict is Verdict.HOLD
    assert "0 customers of the challenger at this weight, of 100 needed" in report.judgement.reasons
    assert {one.name: one.difference for one in report.comparisons}["fallback"] == pytest.approx(0, abs=0.03)
    assert report.decisions == 3000
    assert report.assignment.as_declared


def test_whom_a_person_would_have_seen_anyway_is_left_out_while_decisions_are_stopped(lending: Portfolio):
    """They alone would be left of those mornings, and with them nothing but fallbacks."""
    decisions = week(customers=1000, champion=Model(falls_back=0.3), challenger=Model(falls_back=0.3))
    during = (decisions["applied_at"].dt.hour < 12).to_numpy()
    never, often = report_on(decisions, lending), report_on(stopped(decisions, during), lending)

    fallback = [next(one for one in report.comparisons if one.name == "fallback") for report in (never, often)]
    assert fallback[1].champion == pytest.approx(fallback[0].champion, abs=0.06)
    assert fallback[1].challenger_rows + fallback[1].champion_rows == pytest.approx(1000 - during.sum(), abs=15)


def test_a_step_lasts_as_long_and_sees_as_many_customers_as_the_rules_say(lending: Portfolio):
    few = report_on(week(customers=100), lending, now=START + timedelta(days=1)).judgement

    assert few.verdict is Verdict.HOLD
    assert any("of 100 needed" in reason for reason in few.reasons)
    assert any("1.0 days at this weight, of 3 needed" in reason for reason in few.reasons)


def test_an_experiment_that_shows_nothing_ends(lending: Portfolio):
    report = report_on(week(customers=60), lending, now=START + timedelta(days=181))

    assert report.judgement.verdict is Verdict.STOP
    assert report.judgement.reasons[0] == "nothing was shown in 180 days"


def test_few_customers_are_given_with_less_certainty_than_all(lending: Portfolio):
    """One in four may be tried while a change for all of them could not yet be ruled out."""
    decisions = week(seed=4, customers=1200)
    to_a_quarter = replace(lending, experiment=replace(lending.experiment, ramp=(0.5, 0.6)))
    to_all = replace(lending, experiment=replace(lending.experiment, ramp=(0.5, 1.0)))

    assert report_on(decisions, to_a_quarter).judgement.verdict is Verdict.RAMP
    held = report_on(decisions, to_all).judgement
    assert held.verdict is Verdict.HOLD
    assert "cannot be ruled out for 100% of the customers" in held.reasons[-1]


def test_a_customer_who_applies_every_day_counts_once(lending: Portfolio):
    """Otherwise one who is keen would be many."""
    once = week(customers=400)
    keen = once.head(1).copy()
    again = pd.concat(
        [keen.assign(decision_id=f"again{n}", applied_at=keen["applied_at"] + timedelta(hours=n)) for n in range(300)]
    )

    report = report_on(pd.concat([once, again]), lending)

    assert report.customers == 400
    approval = next(one for one in report.comparisons if one.name == "approval")
    assert approval.challenger_rows + approval.champion_rows == 400
    assert report.assignment.as_declared


def test_a_group_that_the_challenger_refuses_stops_it(lending: Portfolio):
    """Only where the attribute gates, and only for what the challenger does."""
    decisions = week(customers=4000)
    of_group = np.random.default_rng(9).random(len(decisions)) < 0.4
    decisions["protected.gender"] = np.where(of_group, "female", "male")
    unfair = of_group & (np.random.default_rng(10).random(len(decisions)) < 0.5)
    for variant, use, verdict in (
        ("challenger", "gate", Verdict.STOP),
        ("champion", "gate", None),
        ("challenger", "report", None),
    ):
        attribute = ProtectedAttribute("gender", lambda book: book["gender"], use, "a test of fairness")
        refused = decisions.copy()
        refused.loc[unfair & (refused["variant"] == variant), "decision"] = "REJECTED"
        wide = replace(lending.experiment, max_approval_change=0.4)

        report = report_on(refused, replace(lending, protected=(attribute,), experiment=wide))

        breaches = {breach.what for breach in report.judgement.breaches}
        assert ("fairness" in breaches) is (verdict is Verdict.STOP), (variant, use)


@pytest.mark.parametrize(
    ("counters", "what"),
    [
        (Counters("c", 2000, failed=200, timed=2000, slow=10), "errors"),
        (Counters("c", 2000, failed=2, timed=2000, slow=400), "latency"),
        (Counters("c", 2000, failed=2, timed=2000, slow=10), None),
        (None, None),
    ],
)
def test_a_service_that_fails_or_dawdles_stops_it(lending: Portfolio, counters: Counters | None, what: str | None):
    report = report_on(week(), lending, counters=counters)

    assert [breach.what for breach in report.judgement.breaches] == ([what] if what else [])


def test_counters_of_a_service_that_was_started_again_begin_anew():
    first, later = Counters("one", 100, 1, 100, 5), Counters("one", 150, 3, 150, 6)

    assert later.since(first) == Counters("one", 50, 2, 50, 1)
    assert Counters("two", 10, 0, 10, 0).since(later) == Counters("two", 10, 0, 10, 0)
    assert first.plus(later.since(first)) == later


def test_parts_of_the_population_that_differ_are_named(lending: Portfolio):
    """A challenger that refuses weddings alone; parts under thirty customers have no rate."""
    decisions = week(customers=4000)
    weddings = (decisions["feature.loan_purpose"] == 1) & (decisions["variant"] == "challenger")
    decisions.loc[weddings, "decision"] = "REJECTED"

    slices = {(one.by, one.part): one for one in report_on(decisions, lending).slices}

    assert slices["loan_purpose", "wedding"].differs
    assert not slices["loan_purpose", "car"].differs
    assert not slices["loan_purpose", "other"].differs
    few = report_on(decisions.head(50), lending).slices
    assert all(one.challenger is None for one in few)


def test_a_shadow_is_compared_where_it_decides_otherwise(lending: Portfolio):
    """Its decisions on weddings are turned round; the rest agree, with an interval for each part."""
    of = replace(terms(0.0, shadows=("c" * 64,)), challenger=None)
    answered = week(of=of, customers=900)
    turned = (answered["feature.loan_purpose"] == 1).to_numpy()
    shadow = answered.assign(
        about=answered["decision_id"], decision_id="s" + answered["decision_id"], variant="shadow", bundle="c" * 64
    )
    shadow.loc[turned, "decision"] = "MANUAL_REVIEW"

    report = report_on(pd.concat([answered, shadow]), lending, of)
    (compared,) = report.shadows
    weddings = next(one for one in compared.parts if (one.by, one.part) == ("loan_purpose", "wedding"))

    assert report.judgement is None
    assert compared.overall.rows == 900
    assert compared.overall.differing == sum(turned & (answered["decision"] != "MANUAL_REVIEW"))
    assert compared.overall.interval[0] < compared.overall.rate < compared.overall.interval[1]
    assert weddings.rate > 0.9
    assert {one.by for one in compared.parts} == {"score band", "reason", "loan_purpose"}
    assert sum(compared.answered_to_shadow.values()) == 900


def test_a_report_holds_nothing_of_a_customer(lending: Portfolio):
    decisions = week(customers=300)
    text = str(report_on(decisions, lending).as_json())

    assert not [token for token in decisions["customer"] if token in text]


def test_before_anybody_was_decided_nothing_is_said(lending: Portfolio):
    report = report_on(week().head(0), lending)

    assert report.judgement.verdict is Verdict.HOLD
    assert report.plan is None


def test_decisions_of_an_earlier_champion_are_not_compared(lending: Portfolio):
    """A bundle that is neither the champion nor the challenger of the experiment counts for nothing."""
    decisions = week()
    other = decisions.assign(bundle=decisions["bundle"].replace({CHALLENGER: "d" * 64}))

    assert report_on(other, lending).challenger_customers == 0


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"ramp": ()}, "ramp"),
        ({"ramp": (1.0,)}, "ramp"),
        ({"ramp": (0.5, 0.25)}, "ramp"),
        ({"alpha": 0.0}, "alpha"),
        ({"max_approval_change": 1.5}, "max_approval_change"),
        ({"min_days": 200.0}, "min_days"),
        ({"min_decisions": 0}, "min_decisions"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused_by_name(rules: dict, told: str):
    with pytest.raises(PortfolioError, match=told):
        ExperimentRules(**rules)


def test_a_segment_that_is_no_feature_is_refused(lending: Portfolio):
    with pytest.raises(PortfolioError, match="shoe_size"):
        replace(lending, experiment=ExperimentRules(segments=("shoe_size",)))
