"""How many the challenger approves at all: a change can be small and yet be everybody, or nobody."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cde_domain.decisions.experiments.sequences import Arm, mean_sequence
from cde_domain.intervals import Interval
from cde_domain.portfolio.alarms import Alarms


@dataclass(frozen=True)
class ApprovalLevel:
    """
    The share of its customers that the challenger approves, and what the portfolio's alarms allow.

    `interval` is a confidence sequence. An absolute bound on the change says little where the champion approves few:
    from 5 % to nobody is a change of 0.05.
    """

    rows: int
    rate: float
    interval: Interval
    lowest: float
    highest: float

    @property
    def breached(self) -> bool:
        """Whether the share is out of what is allowed, with the whole interval."""
        return self.interval[1] < self.lowest or self.interval[0] > self.highest

    @property
    def cleared(self) -> bool:
        """Whether the share is within what is allowed, with the whole interval."""
        return self.lowest <= self.interval[0] and self.interval[1] <= self.highest

    def __str__(self) -> str:
        """The share with its interval, and the bounds."""
        low, high = self.interval
        return (
            f"the challenger approves {self.rate:.1%} of {self.rows} customers ({low:.1%} to {high:.1%}), where alarms "
            f"allow {self.lowest:.1%} to {self.highest:.1%}"
        )


def approval_level(first: pd.DataFrame, alarms: Alarms, alpha: float) -> ApprovalLevel | None:
    """The level of the customers' first decisions; None before the challenger decided."""
    approved = (first["decision"] == "APPROVED").to_numpy()[first["by_challenger"].to_numpy(dtype=bool)]
    if not len(approved):
        return None
    interval = mean_sequence(Arm(len(approved), float(approved.sum())), alpha)
    return ApprovalLevel(
        len(approved), float(np.mean(approved)), interval, alarms.min_approval_rate, alarms.max_approval_rate
    )
