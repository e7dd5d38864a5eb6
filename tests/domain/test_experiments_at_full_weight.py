"""Tests for a challenger that decides for everybody, and for how often an experiment errs on its way there."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from cde_domain.decisions.experiments.cohort import historical_stratum, strata_of
from cde_domain.decisions.experiments.measures import MEASURES, comparison_of
from cde_domain.decisions.experiments.report import ExperimentReport, experiment_report_of
from cde_domain.decisions.experiments.verdict import Verdict
from cde_domain.portfolio import ExperimentRules, Portfolio
from tests.experiments import NO_LABELS, START, WEEK, Model, terms, traffic


def after_an_even_half(
    lending: Portfolio, full: Model, *, drift: float = 0.0, now: datetime = START + 2 * WEEK
) -> ExperimentReport:
    """A week in which the challenger is the champion's equal, then one in which it decides for everybody."""
    of, random = terms(0.5, 1.0), np.random.default_rng(11)
    drawn = traffic(of, START, 6.9, 2500, random)
    everybody = traffic(of, START + WEEK, 6.9, 2500, random, challenger=full, drift=lambda day: drift)
    wide = {"max_approval_change": 0.15, "max_score_shift": 0.2, "max_expected_bad_rate_rise": 0.15}
    rules = replace(lending.experiment, **wide)
    decided, lender = pd.concat([drawn, everybody]), replace(lending, experiment=rules)
    return experiment_report_of(decided, NO_LABELS, of, lender, now=now)


@pytest.mark.parametrize(
    ("collapsed", "what"),
    [
        (Model(approves=1.0), "approval_at_full_weight"),
        (Model(approves=0.0), "approval_at_full_weight"),
        (Model(falls_back=0.4), "fallback_at_full_weight"),
        (Model(expects=0.5), "expected_bad_rate_at_full_weight"),
    ],
)
def test_a_challenger_that_collapses_once_it_decides_for_everybody_is_stopped(
    lending: Portfolio, collapsed: Model, what: str
):
    """Nobody is drawn at 100 %, so that only the champion's earlier decisions can tell."""
    judgement = after_an_even_half(lending, collapsed).judgement

    assert judgement.verdict is Verdict.STOP
    assert what in {breach.what for breach in judgement.breaches}


def test_a_challenger_that_stays_as_it_was_is_promoted_from_everybody(lending: Portfolio):
    judgement = after_an_even_half(lending, Model()).judgement

    assert judgement.verdict is Verdict.PROMOTE, judgement.reasons


def test_applicants_who_change_at_the_last_step_are_a_doubt_and_a_doubt_is_a_no(lending: Portfolio):
    """The price of a control of the past: nobody can tell such a change from harm."""
    assert after_an_even_half(lending, Model(), drift=-0.3).judgement.verdict is Verdict.STOP
    assert after_an_even_half(lending, Model(), drift=-0.15).judgement.verdict is Verdict.HOLD


def test_a_challenger_that_decided_for_everybody_from_the_start_is_compared_with_nothing(lending: Portfolio):
    of = terms(1.0)
    judgement = experiment_report_of(
        traffic(of, START, 6.9, 2000, np.random.default_rng(0)), NO_LABELS, of, lending, now=START + WEEK
    ).judgement

    assert judgement.verdict is Verdict.HOLD
    assert "no customers to compare with yet" in judgement.reasons


def test_an_experiment_that_was_won_and_is_not_promoted_ends_too(lending: Portfolio):
    """The gate may refuse whoever won for good, and all customers would stay with it."""
    for days, verdict in ((179, Verdict.PROMOTE), (181, Verdict.STOP)):
        judgement = after_an_even_half(lending, Model(), now=START + timedelta(days=days)).judgement

        assert judgement.verdict is verdict
    assert judgement.reasons == ("nothing was promoted in 180 days",)


RUNS, LOOKS, A_LOOK = 100, 8, 75  # experiments, looks a step, customers a look


def ever_breached(seed: int, rules: ExperimentRules, *, name: str, change: float, drift: float, alpha: float) -> bool:
    """Whether some look at an experiment with a true change finds a breach, while it walks up the ramp."""
    random, of = np.random.default_rng(seed), terms(*rules.ramp)
    rows = len(of.steps) * LOOKS * A_LOOK
    step = np.repeat(np.arange(len(of.steps)), LOOKS * A_LOOK)
    taken = random.random(rows) < np.array(rules.ramp)[step]
    happened = (random.random(rows) < 0.5 - drift * np.linspace(0, 1, rows) + change * taken).astype(float)
    first, measure = pd.DataFrame({"step": step, "by_challenger": taken}), next(m for m in MEASURES if m.name == name)
    for seen in range(A_LOOK, rows + 1, A_LOOK):
        weights = replace(of, steps=of.steps[: step[seen - 1] + 1])
        drawn = strata_of(first[:seen], happened[:seen], weights)
        # Beside earlier customers there is no guarantee unless the population stays as it is.
        beside = None if drift else historical_stratum(first[:seen], happened[:seen], weights)
        if comparison_of(measure, [beside] if beside else drawn, rules, alpha).breached:
            return True
    return False


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "change", "drift"),
    [("approval", 0.10, 0.0), ("approval", -0.10, 0.3), ("bad_rate", 0.05, 0.0)],
)
def test_harm_just_within_the_bound_is_stopped_no_more_often_than_alpha(name: str, change: float, drift: float):
    """At 32 looks, with the truth where errors are likeliest; chance may exceed alpha once in a thousand times."""
    rules, alpha = ExperimentRules(), 0.1

    stopped = sum(
        ever_breached(seed, rules, name=name, change=change, drift=drift, alpha=alpha) for seed in range(RUNS)
    )

    assert stopped <= binom.ppf(0.999, RUNS, alpha)
