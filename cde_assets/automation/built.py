"""All sensors, schedules and jobs of this package for one portfolio."""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from cde_assets.automation.alerting import failed_checks_alert, failures_alert
from cde_assets.automation.failed_ticks import failed_ticks_alert
from cde_assets.automation.lost_runs import lost_runs_end
from cde_assets.automation.refreshing import new_loans_refresh
from cde_assets.automation.retraining import drift_retrains, performance_decay_retrains
from cde_assets.automation.schedules import quarterly_card_review, review_job, weekly_retraining
from cde_assets.automation.watcher import Watcher
from cde_domain.portfolio import Portfolio
from cde_serving.settings import Settings


@dataclass(frozen=True)
class Automation:
    """What a code location takes over; the job `train_challenger` is not among it."""

    sensors: list[dg.SensorDefinition]
    schedules: list[dg.ScheduleDefinition]
    jobs: list[Any]


def bento_follows_champion(watcher: Watcher) -> dg.SensorDefinition:
    """The sensor that evaluates the automation condition of `scoring_bento`."""
    return dg.AutomationConditionSensorDefinition(
        "bento_follows_champion",
        target=dg.AssetSelection.assets(watcher.key("scoring_bento")),
        default_status=watcher.default_status,
        run_tags={"portfolio": watcher.name},
        description="Builds the bento of a champion that was promoted alone.",
    )


def automation(settings: Settings, portfolio: Portfolio, reference: str) -> Automation:
    """
    Everything, on by default where the portfolio is the chosen one.

    Raises:
        ValueError: a channel for alerts is not set up as it must be.
    """
    watcher = Watcher.of(settings, portfolio, reference)
    return Automation(
        sensors=[
            drift_retrains(watcher),
            performance_decay_retrains(watcher),
            new_loans_refresh(watcher),
            failures_alert(watcher),
            failed_checks_alert(watcher),
            failed_ticks_alert(watcher),
            lost_runs_end(watcher),
            bento_follows_champion(watcher),
        ],
        schedules=[weekly_retraining(watcher), quarterly_card_review(watcher)],
        jobs=[review_job(watcher)],
    )
