"""The platform as the loop runs it: the scoring service, and Dagster's daemon with the lender's code location."""

from pathlib import Path

import yaml

from cde_assets.processes import Server
from cde_assets.stack import SERVICE, prepare_home, program, scoring_server
from cde_serving.settings import Settings

LOCATION = ("-m", "cde_assets.definitions", "-a", "defs")
# A person does not wait for a queue that is looked at every five seconds; a loop of twenty runs does.
QUICK = {
    "run_coordinator": {
        "module": "dagster.core.run_coordinator",
        "class": "QueuedRunCoordinator",
        "config": {"dequeue_interval_seconds": 1},
    },
    "sensors": {"use_threads": True, "num_workers": 2},
}


def prepare_quick_home(settings: Settings) -> Path:
    """The project's Dagster home, whose queue and sensors are looked at more often."""
    folder = prepare_home(settings)
    path = folder / "dagster.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**config, **QUICK}), encoding="utf-8")
    return folder


def daemon(settings: Settings) -> Server:
    """Dagster's daemon, which starts the code location itself: sensors, schedules and the queue of runs."""
    return Server(
        name="Dagster's daemon",
        command=[program("dagster-daemon"), "run", *LOCATION],
        url="",
        log=settings.home / "logs" / "daemon.log",
        environment={},
    )


def service(settings: Settings) -> Server:
    """The scoring service."""
    return scoring_server(settings, SERVICE, settings.port)
