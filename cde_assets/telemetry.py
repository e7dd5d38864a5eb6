"""No tool of this platform sends usage data home."""

import os

SWITCHES = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "true",
}


def switch_telemetry_off() -> None:
    """Switch it off for this process and those it starts, before the tools are imported."""
    os.environ.update(SWITCHES)
