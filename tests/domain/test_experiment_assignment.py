"""Tests for who was assigned to whom in an experiment: as hash and weights say, and in the declared ratio."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from cde_domain.decisions.experiments.assignment import Ratio, ratio_p_value
from cde_domain.decisions.experiments.cohort import of_experiment
from cde_domain.decisions.experiments.verdict import Verdict
from cde_domain.portfolio import Portfolio
from tests.experiments import CHAMPION, START, report_on, terms, traffic, week


def test_customers_are_drawn_as_hash_and_weights_say_through_every_step(lending: Portfolio):
    of = terms(0.05, 0.25, 0.5)
    report = report_on(traffic(of, START, 20.9, 3000, np.random.default_rng(5)), lending, of)

    assert report.assignment.as_declared
    assert report.assignment.strayed == 0
    assert [r.by_challenger / r.customers for r in report.assignment.ratios] == pytest.approx(
        [0.05, 0.25, 0.5], abs=0.04
    )


def test_a_decision_by_the_other_variant_is_found(lending: Portfolio):
    """One such decision fails the check; more than one in a hundred, and nothing of the experiment is believed."""
    decisions = week()
    for strayed, trusted in ((1, True), (100, False)):
        wrong = decisions.copy()
        wrong.loc[: strayed - 1, "variant"] = wrong["variant"].map({"champion": "challenger", "challenger": "champion"})
        report = report_on(wrong, lending)

        assert report.assignment.strayed == strayed
        assert not report.assignment.as_declared
        assert report.assignment.trusted is trusted
    assert report.judgement.verdict is Verdict.HOLD


def test_a_challenger_that_the_service_never_loads_is_no_evidence(lending: Portfolio):
    """The champion decides for everybody then, and the experiment waits."""
    decisions = week().assign(variant="champion", bundle=CHAMPION)

    report = report_on(decisions, lending)

    assert report.assignment.to_champion > 900
    assert report.judgement.verdict is Verdict.HOLD


def test_a_customer_who_is_moved_back_is_found(lending: Portfolio):
    decisions = week()
    taken = decisions[decisions["variant"] == "challenger"].head(1)
    later = taken.assign(decision_id="later", applied_at=taken["applied_at"] + timedelta(minutes=5), variant="champion")

    assert report_on(pd.concat([decisions, later]), lending).assignment.moved == 1


def test_within_a_minute_of_a_change_either_weight_may_be_followed(lending: Portfolio):
    """Services follow within seconds, each for itself; such decisions are compared with nothing."""
    of = terms(0.05, 0.5)
    change = of.steps[1].since
    late = traffic(terms(0.05), change + timedelta(seconds=5), 50 / 86400, 200, np.random.default_rng(6))
    soon = late.assign(applied_at=late["applied_at"] + timedelta(minutes=2))

    assert of_experiment(late, of)["step"].eq(-1).all()
    assert report_on(late, lending, of).assignment.strayed == 0
    assert report_on(soon, lending, of).assignment.to_champion > 50


def test_a_ratio_that_is_not_the_declared_one_is_told_in_numbers(lending: Portfolio):
    """Two thirds of the challenger's customers were lost on the way, and no decision strayed."""
    decisions = week(customers=2000)
    lost = (decisions["variant"] == "challenger") & (np.random.default_rng(1).random(len(decisions)) < 2 / 3)
    kept = decisions[~lost]
    by_challenger = int((kept["variant"] == "challenger").sum())

    assignment = report_on(kept, lending).assignment

    assert assignment.strayed == 0
    (said,) = assignment.doubts
    share = f"{by_challenger} of {len(kept)} customers ({by_challenger / len(kept):.1%})"
    assert said.startswith(f"{share} were first decided by the challenger, where 50.0% were declared: p ")


@pytest.mark.parametrize(("share", "found"), [(0.5, False), (0.44, True)])
def test_a_ratio_that_is_not_the_weight_is_found(share: float, found: bool):
    """5,000 customers, of whom 6 % of the challenger's were lost on the way."""
    p_value = ratio_p_value((Ratio(0.5, 5000, round(5000 * share)), Ratio(1.0, 100, 100)))

    assert p_value is not None
    assert (p_value < 0.001) is found
