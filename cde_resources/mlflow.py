"""MLflow: the tracked training run through dagster-mlflow, and the model registry.

MLflow takes six seconds to import, so everything here imports it when it is first used: a code location must load fast.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.definitions.decorators.hook_decorator import event_list_hook

from cde_serving.settings import Settings


class MlflowResource(dg.ConfigurableResource):
    """The tracking server and registry of one portfolio's models; `ui` is where people see it."""

    tracking_uri: str
    artefacts: str
    experiment: str
    ui: str

    @classmethod
    def of(cls, settings: Settings, portfolio: str) -> Self:
        """As the settings say."""
        return cls(
            tracking_uri=settings.tracking_uri(),
            artefacts=str(settings.portfolio_home(portfolio) / "mlflow"),
            experiment=portfolio,
            ui=f"http://{settings.host}:{settings.mlflow_port}",
        )

    def client(self) -> Any:
        """An `mlflow.MlflowClient` for tracking and registry."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    def run_url(self, run_id: str) -> str:
        """The page of a run."""
        return f"{self.ui}/#/experiments/{self.client().get_run(run_id).info.experiment_id}/runs/{run_id}"

    def record_nested_run(
        self,
        parent_run_id: str,
        name: str,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        figures: Mapping[str, Any],
        tables: Mapping[str, Any],
    ) -> str:
        """Record a finished run below another one, with figures as PNG and tables as JSON, and return its id."""
        from mlflow.entities import Metric, Param, RunTag

        client = self.client()
        experiment = client.get_run(parent_run_id).info.experiment_id
        run_id: str = client.create_run(
            experiment, run_name=name, tags={"mlflow.parentRunId": parent_run_id, **tags}
        ).info.run_id
        now = int(time.time() * 1000)
        client.log_batch(
            run_id,
            metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
            params=[Param(key, str(value)) for key, value in parameters.items()],
            tags=[RunTag("candidate", name)],
        )
        for file, figure in figures.items():
            client.log_figure(run_id, figure, file)
        for file, content in tables.items():
            client.log_dict(run_id, content, file)
        client.set_terminated(run_id)
        return run_id

    def log_day(self, run_id: str, day: date, measures: Mapping[str, float]) -> None:
        """Log what was measured of a day to a run; the step is the day as YYYYMMDD."""
        from mlflow.entities import Metric

        step = int(day.strftime("%Y%m%d"))
        moment = int(datetime.combine(day, time_of_day(12), UTC).timestamp() * 1000)
        self.client().log_batch(run_id, metrics=[Metric(name, value, moment, step) for name, value in measures.items()])

    def create_experiment(self) -> None:
        """Create the experiment if it is new; MLflow itself would put its artefacts into the working directory."""
        from mlflow.exceptions import MlflowException

        client = self.client()
        if client.get_experiment_by_name(self.experiment) is None:
            Path(self.artefacts).mkdir(parents=True, exist_ok=True)
            try:
                client.create_experiment(self.experiment, artifact_location=Path(self.artefacts).absolute().as_uri())
            except MlflowException:
                if client.get_experiment_by_name(self.experiment) is None:  # not somebody else's creation meanwhile
                    raise

    def set_alias(self, alias: str, version: str) -> None:
        """Point an alias of the registered model (named as the experiment) to a version."""
        self.client().set_registered_model_alias(self.experiment, alias, version)


def dagster_mlflow_run(registry: MlflowResource) -> dg.ResourceDefinition:
    """The dagster-mlflow resource: one MLflow run for one Dagster run, in the registry's experiment."""

    @dg.resource(config_schema={"experiment_name": str, "mlflow_tracking_uri": str})
    def mlflow_run(context: dg.InitResourceContext) -> Iterator[Any]:
        from dagster_mlflow import mlflow_tracking

        registry.create_experiment()
        yield from mlflow_tracking.resource_fn(context)  # type: ignore[call-arg]  # typed as taking nothing

    return mlflow_run.configured({"experiment_name": registry.experiment, "mlflow_tracking_uri": registry.tracking_uri})


@event_list_hook(name="end_mlflow_on_run_finished", required_resource_keys={"mlflow"})
def end_mlflow_on_run_finished(context: dg.HookContext, event_list: Any) -> Any:
    """The dagster-mlflow hook: ends the MLflow run with the status of the Dagster run."""
    from dagster_mlflow import end_mlflow_on_run_finished as hook

    return hook.hook_fn(context, event_list)


@contextmanager
def training_run(context: dg.AssetExecutionContext, mlflow: Any) -> Iterator[Any]:
    """
    The MLflow run of this Dagster run, from the dagster-mlflow resource.

    In a job the hook ends it. Materialised from the UI there is no hook, and the run is ended here, as failed if the
    body raises; the next asset of the same Dagster run takes it up again.
    """
    hooked = bool(context.job_def.hook_defs)
    if mlflow.active_run() is None:
        ended = mlflow.search_runs(filter_string=f"tags.dagster_run_id = '{context.run_id}'", output_format="list")
        mlflow.start_run(run_id=ended[0].info.run_id if ended else None)
    try:
        yield mlflow
    except BaseException:
        if not hooked:
            mlflow.end_run(status="FAILED")
        raise
    if not hooked:
        mlflow.end_run()


def log_library_model(model: Any, *, registered_model_name: str) -> Any:
    """Log trees to the active run in their library's own format, without pickle, and register them."""
    from cde_domain.training.boosting import BoostedTrees
    from cde_domain.training.options import WinsorisedTrees

    if isinstance(model, WinsorisedTrees):
        model = model.trees
    if isinstance(model, BoostedTrees):
        import mlflow.xgboost
        import xgboost

        return mlflow.xgboost.log_model(
            model.booster,
            name="model",
            model_format="ubj",
            registered_model_name=registered_model_name,
            pip_requirements=[f"xgboost=={xgboost.__version__}"],
        )
    import mlflow.sklearn
    import sklearn
    import skops

    from cde_domain.training.stored import TRUSTED_TYPES

    return mlflow.sklearn.log_model(
        model.estimator,
        name="model",
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED_TYPES),
        registered_model_name=registered_model_name,
        pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"skops=={skops.__version__}"],
    )
