"""A code location with the platform's sensors over a training that only writes down when it began and ended."""

import time

import dagster as dg

from cde_assets.automation.built import automation
from cde_domain.portfolio import load_portfolio
from cde_serving.settings import Settings

SETTINGS = Settings()
NAME = SETTINGS.portfolio
HOLD = SETTINGS.home / "hold"  # a training lasts for as long as this file is there
JOURNAL = SETTINGS.home / "trainings.txt"


def note(line: str) -> None:
    """Append a line to the journal of trainings."""
    with JOURNAL.open("a", encoding="utf-8") as journal:
        journal.write(line + "\n")


@dg.op
def train(context: dg.OpExecutionContext) -> None:
    """Train nothing, for as long as the test wants."""
    note(f"began {context.run_id}")
    while HOLD.exists():
        time.sleep(0.1)
    note(f"ended {context.run_id}")


@dg.job(name="train_challenger", tags={"portfolio": NAME}, executor_def=dg.in_process_executor)
def train_challenger() -> None:
    """Stand for the training of a challenger."""
    train()


@dg.asset(key=dg.AssetKey([NAME, "model_card"]))
def model_card() -> None:
    """Stand for the card."""


@dg.asset(key=dg.AssetKey([NAME, "scoring_bento"]))
def scoring_bento() -> None:
    """Stand for the bento that follows a champion."""


BY_ITSELF = automation(SETTINGS, load_portfolio(NAME), NAME)
defs = dg.Definitions(
    assets=[model_card, scoring_bento],
    jobs=[train_challenger, *BY_ITSELF.jobs],
    sensors=BY_ITSELF.sensors,
    schedules=BY_ITSELF.schedules,
)
