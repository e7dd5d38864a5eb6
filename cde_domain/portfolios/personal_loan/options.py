"""What a run may change about the simulated book."""

from datetime import date

from pydantic import Field

from cde_domain.portfolio import SourceOptions

OUTCOME_AFTER_DAYS = 365
LAST_DAY = date(2026, 6, 30)


class SimulationOptions(SourceOptions):
    """How many applications are drawn, with which seed, and how far the customers have drifted."""

    rows: int = Field(default=20_000, ge=1_000, description="Number of applications")
    seed: int = Field(default=7, ge=0, description="Seed; the same seed and rows give the same book")
    drift: float = Field(
        default=0.0,
        ge=-3,
        le=3,
        description="Standard deviations by which income and creditworthiness of all customers are lower",
    )
    as_of: date = Field(
        default=LAST_DAY,
        ge=date(2023, 1, 1),
        description="Day on which the book is read; what is dated later is not in it, and nothing is after 2026-06-30",
    )
