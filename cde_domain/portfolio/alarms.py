"""The numbers at which a portfolio's owner wants to be told, and from which a model is trained again."""

from dataclasses import dataclass

from cde_domain.portfolio.errors import PortfolioError

MAY_BE_NONE = ("min_accuracy", "min_auc", "max_approval_rate_change")


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """
    When what is decided today is no longer what was promoted.

    A number of the owner's own is a line: whatever is measured below `min_accuracy` or `min_auc` raises an alarm; None
    draws none. Scores from `accuracy_cut_off` on count as foretelling repayment. A drop is compared with what the
    champion promised and raises an alarm only where chance does not explain it too: `max_auc_drop`, `max_brier_rise`
    and `max_bad_rate_rise`. `min_approval_rate` and `max_approval_rate` bound the share approved, and
    `max_approval_rate_change` how far it may move from the champion's on the loan book (None: any distance); they too
    must be crossed by more than chance. `min_adverse_impact_ratio` is asked of live decisions, and must
    be missed by more than chance too.

    `false_alarm_rate` is the probability, at most, that chance alone raises an alarm in one report: about drift where
    nothing has drifted, about groups where every ratio is the least one or more, about performance where loans do as
    their scores say; each whatever the number of features, groups or decisions. An owner's line and the bounds of the
    share approved have no part in it; these are held to their 95 % interval. A population stability index below
    `min_psi` is never an alarm, however many decisions show it.

    Reports look at `window_days` days, those about outcomes at the `outcome_window_days` youngest whose outcomes are
    mature, and judge from `min_decisions` decisions or `min_outcomes` outcomes on. `retrain_cooldown_days` is how long
    the sensors wait after a training before they ask for another.
    """

    min_accuracy: float | None = None
    min_auc: float | None = None
    accuracy_cut_off: float = 0.5
    max_auc_drop: float = 0.05
    max_brier_rise: float = 0.02
    max_bad_rate_rise: float = 0.03
    min_approval_rate: float = 0.02
    max_approval_rate: float = 0.98
    max_approval_rate_change: float | None = 0.15
    min_adverse_impact_ratio: float = 0.80
    false_alarm_rate: float = 0.01
    min_psi: float = 0.10
    window_days: int = 30
    outcome_window_days: int = 90
    min_decisions: int = 100
    min_outcomes: int = 100
    retrain_cooldown_days: int = 30

    def __post_init__(self) -> None:
        for name in (
            *MAY_BE_NONE,
            "accuracy_cut_off",
            "max_auc_drop",
            "max_brier_rise",
            "max_bad_rate_rise",
            "min_psi",
        ):
            value = getattr(self, name)
            if not (value is None and name in MAY_BE_NONE) and not 0 < value < 1:
                raise PortfolioError(f"alarms: {name} must lie between 0 and 1")
        if not 1e-4 <= self.false_alarm_rate <= 0.2:
            raise PortfolioError("alarms: false_alarm_rate must lie between 0.0001 and 0.2")
        if not 0 <= self.min_approval_rate < self.max_approval_rate <= 1:
            raise PortfolioError("alarms: min_approval_rate must lie below max_approval_rate, both between 0 and 1")
        if not 0 < self.min_adverse_impact_ratio <= 1:
            raise PortfolioError("alarms: min_adverse_impact_ratio must lie above 0 and not above 1")
        for name in ("window_days", "outcome_window_days", "min_decisions", "min_outcomes"):
            if getattr(self, name) < 1:
                raise PortfolioError(f"alarms: {name} must be 1 or more")
        if self.retrain_cooldown_days < 0:
            raise PortfolioError("alarms: retrain_cooldown_days must not be negative")
