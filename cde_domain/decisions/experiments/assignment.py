"""Whether customers were assigned as declared: each as the hash says, and as many as the weights say."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cde_domain.decisions.experiments.cohort import BETWEEN, GRACE, Terms
from cde_domain.decisions.experiments.sequences import Arm, log_evidence
from cde_domain.decisions.variants import place_of

UNTRUSTED_P = 0.001  # a ratio so improbable is a fault; Fabijan et al. (2019), KDD, look for the same
UNTRUSTED_SHARE = 0.01


@dataclass(frozen=True)
class Ratio:
    """The first decisions of customers at one weight, and how many were the challenger's."""

    weight: float
    customers: int
    by_challenger: int


@dataclass(frozen=True)
class Assignment:
    """
    How customers were assigned.

    `strayed` decisions were taken by another variant than hash and weight say: `to_challenger` and `to_champion`.
    `moved` customers went from the challenger to the champion. `p_value` is of the ratios being those of the weights,
    valid however often it is looked at (Lindon and Malek 2022, NeurIPS); None before anybody was drawn.
    """

    decisions: int
    customers: int
    to_challenger: int
    to_champion: int
    moved: int
    ratios: tuple[Ratio, ...]
    p_value: float | None

    @property
    def strayed(self) -> int:
        """Decisions by another variant than declared."""
        return self.to_challenger + self.to_champion

    @property
    def as_declared(self) -> bool:
        """Whether every decision was taken by whom it should be, and as many customers were drawn as declared."""
        return not self.strayed and not self.moved and (self.p_value is None or self.p_value >= UNTRUSTED_P)

    @property
    def trusted(self) -> bool:
        """Whether what the experiment found can be believed."""
        return not self.doubts

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why it cannot: more than one decision in a hundred strayed, or the ratio is not the declared one."""
        doubts = []
        if self.strayed > UNTRUSTED_SHARE * self.decisions:
            doubts.append(f"{self.strayed} of {self.decisions} decisions by another variant than declared")
        if self.p_value is not None and self.p_value < UNTRUSTED_P:
            drawn = [ratio for ratio in self.ratios if 0 < ratio.weight < 1]
            customers, taken = (sum(getattr(one, name) for one in drawn) for name in ("customers", "by_challenger"))
            declared = sum(one.weight * one.customers for one in drawn) / customers
            doubts.append(
                f"{taken} of {customers} customers ({taken / customers:.1%}) were first decided by the challenger, "
                f"where {declared:.1%} were declared: p {self.p_value:.2g}"
            )
        return tuple(doubts)


def examine_assignment(decided: pd.DataFrame, first: pd.DataFrame, terms: Terms) -> Assignment:
    """
    Compare who decided with what was declared; a decision within a minute of a change may follow either weight.

    `decided` is every answered decision of the experiment, `first` the first of each customer.
    """
    codes, tokens = pd.factorize(decided["customer"])
    places = np.array([place_of(customer, terms.experiment) for customer in tokens])[codes] if len(tokens) else codes
    low, high = _weights_around(decided["applied_at"], terms)
    challenger = decided["by_challenger"].to_numpy(dtype=bool)
    ratios = tuple(
        Ratio(step.weight, int(chosen.sum()), int((chosen & first["by_challenger"].to_numpy(dtype=bool)).sum()))
        for number, step in enumerate(terms.steps)
        for chosen in [first["step"].to_numpy() == number]
    )
    return Assignment(
        decisions=len(decided),
        customers=len(tokens),
        to_challenger=int((challenger & (places >= high)).sum()),
        to_champion=int((~challenger & (places < low)).sum()),
        moved=_moved(decided, terms),
        ratios=ratios,
        p_value=ratio_p_value(ratios),
    )


def ratio_p_value(ratios: tuple[Ratio, ...]) -> float | None:
    """The p-value of sample ratios, valid at all times; None where no customer was drawn at a weight within (0, 1)."""
    drawn = [ratio for ratio in ratios if 0 < ratio.weight < 1 and ratio.customers]
    if not drawn:
        return None
    against = sum(log_evidence(Arm(ratio.customers, ratio.by_challenger), ratio.weight) for ratio in drawn)
    return min(1.0, math.exp(-against))


def _weights_around(applied_at: pd.Series, terms: Terms) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest weight that each decision may have followed."""
    low, high = np.ones(len(applied_at)), np.zeros(len(applied_at))
    ends = [*(step.since for step in terms.steps[1:]), None]
    for step, end in zip(terms.steps, ends, strict=True):
        follows = (applied_at >= pd.Timestamp(step.since - GRACE)).to_numpy()
        if end is not None:
            follows &= (applied_at <= pd.Timestamp(end + GRACE)).to_numpy()
        low = np.where(follows, np.minimum(low, step.weight), low)
        high = np.where(follows, np.maximum(high, step.weight), high)
    just_started = (applied_at <= pd.Timestamp(terms.started + GRACE)).to_numpy()
    return np.where(just_started, 0.0, low), high


def _moved(decided: pd.DataFrame, terms: Terms) -> int:
    """Customers whom the challenger decided for and later the champion, though the weight never fell."""
    weights = [step.weight for step in terms.steps]
    if weights != sorted(weights):
        return 0
    settled = decided[decided["step"] != BETWEEN]
    by_challenger = settled["by_challenger"].astype(int)
    before = by_challenger.groupby(settled["customer"], sort=False).cummax()
    return int(settled.loc[by_challenger < before, "customer"].nunique())
