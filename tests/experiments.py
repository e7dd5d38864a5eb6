"""Recorded decisions of experiments that never took place, with a truth that is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from cde_domain.decisions.experiments.cohort import Step, Terms
from cde_domain.decisions.experiments.report import ExperimentReport, experiment_report_of
from cde_domain.decisions.experiments.verdict import Verdict
from cde_domain.decisions.variants import place_of
from cde_domain.portfolio import Portfolio

START = datetime(2026, 3, 2, tzinfo=UTC)
CHAMPION, CHALLENGER = "a" * 64, "b" * 64
WEEK = timedelta(days=7)
NO_LABELS = pd.DataFrame({"decision_id": pd.Series(dtype=object), "repaid": pd.Series(dtype=bool)})


def terms(*weights: float, name: str = "autumn", days_each: float = 7, shadows: tuple[str, ...] = ()) -> Terms:
    """An experiment whose weight changed every few days."""
    steps = tuple(Step(START + timedelta(days=days_each * n), weight) for n, weight in enumerate(weights))
    return Terms(name, len(steps), CHAMPION, CHALLENGER, shadows, steps)


@dataclass(frozen=True)
class Model:
    """Approves a share of customers at random, expects some of its approved loans to fail, and some do."""

    approves: float = 0.6
    expects: float = 0.1
    fails: float = 0.1
    falls_back: float = 0.01


def traffic(
    of: Terms,
    first: datetime,
    days: float,
    customers: int,
    random: np.random.Generator,
    *,
    champion: Model = Model(),
    challenger: Model = Model(),
    drift: Callable[[float], float] = lambda day: 0.0,
) -> pd.DataFrame:
    """The first decisions of new customers in some days, by the variant that hash and weight say."""
    moments = sorted(first + timedelta(days=float(day)) for day in random.uniform(days / 100, days, customers))
    rows = []
    for moment in moments:
        number = f"{random.integers(2**62):x}"
        weight = next(step.weight for step in reversed(of.steps) if step.since <= moment)
        taken = place_of(number, of.experiment) < weight
        model = challenger if taken else champion
        approved = random.random() < model.approves + drift((moment - START) / timedelta(days=1))
        fallback = not approved and random.random() < model.falls_back / max(1e-9, 1 - model.approves)
        rows.append(
            {
                "decision_id": f"d{number}",
                "tenant": "default",
                "customer": number,
                "applied_at": moment,
                "variant": "challenger" if taken else "champion",
                "about": None,
                "bundle": CHALLENGER if taken else CHAMPION,
                "decision": "APPROVED" if approved else "MANUAL_REVIEW" if fallback else "REJECTED",
                "decided_by": "fallback" if fallback else "model",
                "score": 1 - model.expects * random.uniform(0.8, 1.2) if approved else random.uniform(0, 0.7),
                "reason_codes": [] if approved else ["BUREAU_SCORE"],
                "feature.loan_purpose": float(random.integers(3)),
                "failed": bool(approved and random.random() < model.fails),
            }
        )
    frame = pd.DataFrame(rows)
    frame["applied_at"] = pd.to_datetime(frame["applied_at"], utc=True).dt.as_unit("us")
    return frame


def outcomes(decisions: pd.DataFrame) -> pd.DataFrame:
    """What became of the approved loans, all of it known."""
    approved = decisions[decisions["decision"] == "APPROVED"]
    return pd.DataFrame({"decision_id": approved["decision_id"], "repaid": ~approved["failed"].astype(bool)})


HALF = terms(0.5)


def week(seed: int = 0, customers: int = 2000, of: Terms = HALF, **models: Model) -> pd.DataFrame:
    """The decisions of an experiment's first week."""
    return traffic(of, START, 6.9, customers, np.random.default_rng(seed), **models)


def report_on(
    decisions: pd.DataFrame,
    lending: Portfolio,
    of: Terms = HALF,
    labelled: pd.DataFrame = NO_LABELS,
    *,
    now: datetime = START + WEEK,
    **more: Any,
) -> ExperimentReport:
    """What is said of an experiment, after its first week unless another time is given."""
    return experiment_report_of(decisions, labelled, of, lending, now=now, **more)


def run_its_course(
    lending: Portfolio,
    challenger: Model,
    *,
    seed: int,
    customers_a_day: int = 600,
    most_days: int = 40,
    drift: Callable[[float], float] = lambda day: 0.0,
) -> tuple[list[tuple[int, float]], ExperimentReport]:
    """Look every day and do what the verdict says; the days and weights, and the last report."""
    random = np.random.default_rng(seed)
    of = replace(terms(lending.experiment.ramp[0]), experiment=f"experiment-{seed}")
    decisions, history = [], [(0, of.weight)]
    for day in range(most_days):
        now = START + timedelta(days=day + 1)
        decisions.append(
            traffic(of, START + timedelta(days=day), 0.99, customers_a_day, random, challenger=challenger, drift=drift)
        )
        report = experiment_report_of(pd.concat(decisions), NO_LABELS, of, lending, now=now)
        assert report.judgement is not None
        if report.judgement.verdict is Verdict.RAMP:
            assert report.judgement.next_weight is not None
            history.append((day + 1, report.judgement.next_weight))
            of = replace(of, entry=of.entry + 1, steps=(*of.steps, Step(now, report.judgement.next_weight)))
        elif report.judgement.verdict is not Verdict.HOLD:
            break
    return history, report
