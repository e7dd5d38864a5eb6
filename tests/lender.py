"""A lender at work: runs of the asset graph in this process or through the command, on real files."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import dagster as dg

from cde_assets.definitions import JOB, build_definitions
from cde_assets.stack import prepare_home
from cde_resources.releases import ReleasesResource
from cde_serving.ledger import PromotionLedger
from cde_serving.releases import ReleaseStore
from cde_serving.settings import Settings

ROOT = Path(__file__).parents[1]


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a person who works in `home`."""
    return {**os.environ, "CDE_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), **more}


def run_cde(home: Path, *arguments: str, timeout: float = 580, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the `cde` command to its end."""
    command = [str(Path(sys.executable).parent / "cde"), *arguments]
    env = environment(home, **more)
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False)


@dataclass
class Run:
    """What a run of assets did."""

    success: bool
    made: list[str] = field(default_factory=list)
    passed: dict[str, bool] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class Lender:
    """One portfolio in one home, with its Dagster instance."""

    def __init__(self, home: Path, reference: str, options: Mapping[str, Any] | None = None) -> None:
        self.settings = Settings(home=home, portfolio=reference, source_options=dict(options or {}), _env_file=None)
        self.name = self.settings.portfolio_name()
        self.definitions = build_definitions(reference, self.settings)

    def __enter__(self) -> Self:
        self.instance = dg.DagsterInstance.from_config(str(prepare_home(self.settings)))
        return self

    def __exit__(self, *_: object) -> None:
        self.instance.dispose()

    @property
    def ledger(self) -> PromotionLedger:
        """What was promoted."""
        return self.store.ledger

    @property
    def store(self) -> ReleaseStore:
        """Ledger, bundles, evidence and approvals."""
        return ReleasesResource.of(self.settings, self.name).store()

    def run(self, *assets: str, training: Mapping[str, Any] | None = None) -> Run:
        """Run the whole job, trained as said, or materialise some assets as the button in the UI does."""
        if not assets:
            return self._execute(self.definitions.resolve_job_def(JOB), training=training)
        return self._execute(self.definitions.resolve_implicit_global_asset_job_def(), assets)

    def run_unchecked(self, *assets: str) -> Run:
        """Materialise some assets with their checks deselected."""
        selection = dg.AssetSelection.assets(*self._keys(assets)).without_checks()
        job = dg.Definitions(jobs=[dg.define_asset_job("unchecked", selection)])
        return self._execute(dg.Definitions.merge(self.definitions, job).resolve_job_def("unchecked"))

    def _keys(self, assets: Sequence[str]) -> list[dg.AssetKey]:
        return [dg.AssetKey([self.name, asset]) for asset in assets]

    def _execute(
        self, job: dg.JobDefinition, assets: Sequence[str] = (), training: Mapping[str, Any] | None = None
    ) -> Run:
        ops = {"ops": {"candidate_models": {"config": dict(training)}}} if training else {}
        result = job.execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            asset_selection=self._keys(assets) or None,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, **ops},
        )
        return _summary(result)


def _summary(result: dg.ExecuteInProcessResult) -> Run:
    run = Run(result.success)
    for event in result.all_events:
        if event.is_step_materialization:
            run.made.append(event.step_materialization_data.materialization.asset_key.path[-1])
        elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            run.passed[evaluation.check_name] = evaluation.passed
            run.said[evaluation.check_name] = evaluation.description or ""
        elif event.is_step_failure and event.step_failure_data.error is not None:
            user = event.step_failure_data.user_failure_data
            run.failures[event.step_key] = str(user.description if user else event.step_failure_data.error.message)
    return run
