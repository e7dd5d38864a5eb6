"""The customers of an experiment: by which variant each was decided first, and while which share was in force."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.decisions.engine import Routing
from cde_domain.decisions.experiments.sequences import Arm, Stratum
from cde_domain.decisions.policy import Outcome
from cde_domain.decisions.variants import Variant

GRACE = timedelta(seconds=60)  # services follow a change within seconds, each of its processes for itself

BETWEEN = -1  # the step of a decision that was taken while a change of the weight was being followed


@dataclass(frozen=True)
class Step:
    """A share of the customers that the challenger decides for, and since when."""

    since: datetime
    weight: float


@dataclass(frozen=True)
class Terms:
    """
    What was signed of one experiment: who takes part, and its weights, oldest first.

    `champion` is the bundle that was promoted when it started, `entry` the number of its last entry in the log.
    """

    experiment: str
    entry: int
    champion: str
    challenger: str | None
    shadows: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def started(self) -> datetime:
        """When it started."""
        return self.steps[0].since

    @property
    def weight(self) -> float:
        """The share that is in force."""
        return self.steps[-1].weight

    @property
    def unsettled(self) -> tuple[datetime, ...]:
        """When it started and when its weight changed."""
        return tuple(step.since for step in self.steps)


def of_experiment(decisions: pd.DataFrame, terms: Terms) -> pd.DataFrame:
    """
    The answered decisions since the experiment started, in order of time, with their step.

    Adds `step` (which of the weights was in force, BETWEEN within a minute of a change) and `by_challenger`.
    """
    answered = decisions[decisions["variant"].isin([Variant.CHAMPION.value, Variant.CHALLENGER.value])]
    found = answered[answered["applied_at"] >= pd.Timestamp(terms.started)]
    found = found.sort_values(["applied_at", "decision_id"], kind="stable").reset_index(drop=True)
    found["by_challenger"] = (found["variant"] == Variant.CHALLENGER.value).to_numpy()
    found["step"] = _steps(found["applied_at"], terms)
    return found


def automatically_decided(decided: pd.DataFrame) -> pd.DataFrame:
    """
    The decisions that were taken while automatic ones were not stopped; `decided` is in order of time.

    While they are stopped everything goes to a person, by neither model, and only what a person would have seen anyway
    keeps its own reason: these too are left out where the last or the next other decision was a stopped one, since what
    they are chosen by is their outcome.
    """
    stopped = decided["reason_codes"].map(lambda codes: Routing.AUTOMATIC_DECISIONS_STOPPED in codes).to_numpy(bool)
    told = pd.Series(np.where(stopped, 1.0, np.nan), index=decided.index)
    told = told.mask((decided["decision"] != Outcome.MANUAL_REVIEW).to_numpy(), 0.0)
    within = (told.ffill() == 1) | (told.bfill() == 1)
    return decided[~np.where(told.notna(), told == 1, within)].reset_index(drop=True)


def first_decisions(decided: pd.DataFrame, terms: Terms) -> pd.DataFrame:
    """
    One row a customer: the first decision that a model of the experiment took at a settled weight.

    A customer who applies twice would count twice for the same draw, so the customer is the unit. Whoever came first
    while a weight was being followed is left out, as are decisions of other bundles.
    """
    ours = np.where(
        decided["by_challenger"], decided["bundle"] == terms.challenger, decided["bundle"] == terms.champion
    )
    first = decided[ours].drop_duplicates(["tenant", "customer"], keep="first")
    return first[first["step"] != BETWEEN].reset_index(drop=True)


def strata_of(first: pd.DataFrame, outcome: NDArray[np.float64], terms: Terms) -> list[Stratum]:
    """
    The outcomes in [0, 1] of both variants, by step; NaN is none.

    Only steps with a share between 0 and 1 compare: where all customers go to one variant, nobody was drawn.
    """
    steps, challenger = first["step"].to_numpy(), first["by_challenger"].to_numpy(dtype=bool)
    return [
        Stratum(*(_arm(outcome, (steps == number) & side) for side in (challenger, ~challenger)))
        for number, step in enumerate(terms.steps)
        if 0 < step.weight < 1
    ]


def historical_stratum(first: pd.DataFrame, outcome: NDArray[np.float64], terms: Terms) -> Stratum | None:
    """
    The challenger where it decides for everybody, beside the champion at all lower weights: a historical control.

    Nobody is drawn at a weight of 1, so the champion's customers are earlier ones. This takes them to be of the same
    population, for which nothing but the short time speaks: where applicants change between the steps, that looks like
    a difference and may stop the experiment, since a doubt is a no. Without such a change the interval of the
    difference holds at all times as that of any other stratum does. Pocock (1976), J. Chronic Diseases 29(3), on such
    controls. None before a weight of 1.
    """
    steps, challenger = first["step"].to_numpy(), first["by_challenger"].to_numpy(dtype=bool)
    full = np.isin(steps, [number for number, step in enumerate(terms.steps) if step.weight == 1])
    if terms.weight < 1 and not full.any():
        return None
    return Stratum(_arm(outcome, full & challenger), _arm(outcome, ~full & ~challenger))


def drawn(first: pd.DataFrame, terms: Terms) -> pd.DataFrame:
    """The customers of the steps in which both variants decide, who alone can be compared."""
    both = [number for number, step in enumerate(terms.steps) if 0 < step.weight < 1]
    return first[first["step"].isin(both)].reset_index(drop=True)


def arms_of(strata: Sequence[Stratum]) -> tuple[Arm, Arm]:
    """Challenger and champion over all steps."""
    return (
        Arm(sum(one.challenger.rows for one in strata), sum(one.challenger.total for one in strata)),
        Arm(sum(one.champion.rows for one in strata), sum(one.champion.total for one in strata)),
    )


def _arm(outcome: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Arm:
    known = outcome[chosen & ~np.isnan(outcome)]
    return Arm(len(known), float(known.sum()))


def _steps(applied_at: pd.Series, terms: Terms) -> NDArray[np.int64]:
    moments = pd.DatetimeIndex(applied_at).tz_convert("UTC").as_unit("us").asi8
    changes = pd.DatetimeIndex(terms.unsettled).tz_convert("UTC").as_unit("us").asi8
    grace = int(GRACE / timedelta(microseconds=1))
    number = np.searchsorted(changes, moments, side="right") - 1
    last = changes[np.maximum(number, 0)]
    following = np.append(changes, np.iinfo(np.int64).max // 2)[number + 1]
    settled = (moments - last > grace) & (following - moments > 0)
    return np.where(settled & (number >= 0), number, BETWEEN)
