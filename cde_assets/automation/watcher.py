"""What all sensors of a portfolio share."""

from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from cde_assets.experiments.truth import running
from cde_domain.clock import Clock
from cde_domain.portfolio import Portfolio
from cde_resources.alerts.alerter import Alerter, open_alerter
from cde_resources.clock import opened_clock
from cde_resources.releases import ReleasesResource
from cde_serving.settings import Settings

SECONDS = 30
SECONDS_BY_CLOCK_FILE = 5  # where months pass in minutes

Evaluate = Callable[[dg.SensorEvaluationContext], dg.SensorResult]


@dataclass(frozen=True)
class Watcher:
    """The portfolio that is watched, its alerter, and the time; sensors run by themselves only where it is `chosen`."""

    settings: Settings
    portfolio: Portfolio
    reference: str
    clock: Clock
    alerter: Alerter
    chosen: bool

    @classmethod
    def of(cls, settings: Settings, portfolio: Portfolio, reference: str) -> "Watcher":
        """
        As the settings say.

        Raises:
            ValueError: a channel for alerts is not set up as it must be.
        """
        clock = opened_clock(str(settings.clock_file) if settings.clock_file else None)
        alerter = open_alerter(settings, portfolio.name, clock)
        return cls(settings, portfolio, reference, clock, alerter, chosen=reference == settings.portfolio)

    @property
    def name(self) -> str:
        """The portfolio's name."""
        return self.portfolio.name

    @property
    def default_status(self) -> dg.DefaultSensorStatus:
        """On by default for the chosen portfolio alone."""
        return dg.DefaultSensorStatus.RUNNING if self.chosen else dg.DefaultSensorStatus.STOPPED

    @property
    def cooldown_days(self) -> float:
        """Days after a training in which no report asks for another."""
        return float(self.portfolio.alarms.retrain_cooldown_days)

    def key(self, asset: str) -> dg.AssetKey:
        """The key of an asset of the portfolio."""
        return dg.AssetKey([self.name, asset])

    def has_champion(self) -> bool:
        """Whether a model was promoted, so that there is something for a challenger to challenge."""
        return self.champion() is not None

    def champion(self) -> str | None:
        """The digest of the bundle that is promoted."""
        current = ReleasesResource.of(self.settings, self.name).store().ledger.current()
        return current.bundle if current is not None else None

    def experiment(self) -> str | None:
        """The experiment with a challenger that runs: until it ends, a newer challenger could not take part."""
        return running(ReleasesResource.of(self.settings, self.name))

    def sensor(
        self, name: str, evaluate: Evaluate, *, description: str, job_name: str | None = None
    ) -> dg.SensorDefinition:
        """A sensor that is on by default for the chosen portfolio alone."""
        return dg.SensorDefinition(
            name=name,
            evaluation_fn=evaluate,
            job_name=job_name,
            description=description,
            default_status=self.default_status,
            minimum_interval_seconds=SECONDS_BY_CLOCK_FILE if self.settings.clock_file else SECONDS,
        )
