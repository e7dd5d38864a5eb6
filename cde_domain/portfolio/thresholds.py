"""The numbers of a portfolio: what loans earn and cost, and what a challenger must reach."""

from dataclasses import dataclass

MIN_ALTERNATIVES = 20  # searched for a less discriminatory model


@dataclass(frozen=True)
class Economics:
    """What a good loan earns and a bad one costs, as shares of the amount lent."""

    margin: float
    loss_given_default: float

    @property
    def break_even(self) -> float:
        """The probability of repayment at which a loan earns nothing."""
        return self.loss_given_default / (self.margin + self.loss_given_default)


@dataclass(frozen=True)
class Thresholds:
    """
    The numbers a challenger must reach.

    `max_decision_ms` is what one explained decision may take in process, at the median and without the network. A less
    discriminatory model may lose `alternative_auc_tolerance` in AUC and must raise a group's impact ratio by
    `alternative_min_gain`.
    """

    min_auc: float = 0.70
    max_calibration_error: float = 0.03
    max_single_feature_auc: float = 0.90
    max_auc_loss_to_champion: float = 0.01
    min_adverse_impact_ratio: float = 0.80
    max_approval_rate: float = 0.98
    max_book_psi: float = 0.25
    min_loans: int = 500
    min_bad_loans: int = 50
    max_decision_ms: float = 2.0
    alternative_auc_tolerance: float = 0.005
    alternative_min_gain: float = 0.02
