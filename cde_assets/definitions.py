"""One Dagster code location a portfolio: an attribute for each shipped one, and `defs` for the chosen one."""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import dagster as dg

from cde_assets import features, release
from cde_assets.automation.built import automation
from cde_assets.automation.training_runs import TRAINING_JOB
from cde_assets.daily import daily_jobs
from cde_assets.decisions import GROUP as DECISIONS
from cde_assets.decisions import batch, drift, estimated, experiment_report, live, policy_simulation, recorded
from cde_assets.decisions.monitoring import monitoring
from cde_assets.experiments import starting
from cde_assets.experiments.moving import experiment_automation
from cde_assets.governance import alternatives, card, compliance, evidence, fairness, latency, reports
from cde_assets.loan_book import loan_book_assets
from cde_assets.model import candidates, challenger, evaluation
from cde_assets.telemetry import switch_telemetry_off
from cde_checks import features as feature_checks
from cde_checks import governance as governance_checks
from cde_checks import loan_book as loan_book_checks
from cde_checks import model as model_checks
from cde_checks import release as release_checks
from cde_checks.decisions import batch as batch_checks
from cde_checks.decisions import experiments as experiment_checks
from cde_checks.decisions import monitoring as monitoring_checks
from cde_checks.decisions import recorded as recorded_checks
from cde_domain.portfolio import load_portfolio, shipped_portfolios
from cde_resources.artefacts import ArtefactIOManager
from cde_resources.bentos import BentoStore
from cde_resources.decision_log import DecisionLogResource
from cde_resources.mlflow import MlflowResource, dagster_mlflow_run, end_mlflow_on_run_finished
from cde_resources.portfolio import ARTEFACTS, PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_resources.service import ServiceResource
from cde_serving.settings import Settings

JOB = "train_and_release"
BATCH_JOB = "score_applications_of_a_day"
ASSETS = (
    features,
    candidates,
    challenger,
    evaluation,
    fairness,
    alternatives,
    reports,
    latency,
    compliance,
    card,
    evidence,
    release,
    starting,
    batch,
    drift,
    estimated,
    live,
    experiment_report,
    recorded,
    policy_simulation,
)
CHECKS = (
    loan_book_checks,
    feature_checks,
    model_checks,
    governance_checks,
    release_checks,
    batch_checks,
    monitoring_checks,
    experiment_checks,
    recorded_checks,
)


def build_definitions(reference: str, settings: Settings) -> dg.Definitions:
    """Everything of one portfolio: assets and checks under its name, its job, and the resources they need."""
    switch_telemetry_off()
    portfolio = load_portfolio(reference)
    loan_book_module = ModuleType("loan_book")  # its assets depend on the portfolio's sources
    vars(loan_book_module).update(loan_book_assets(portfolio))
    options = settings.source_options if reference == settings.portfolio else {}
    registry = MlflowResource.of(settings, portfolio.name)
    chosen = reference == settings.portfolio
    daily, schedules = daily_jobs(settings, portfolio, chosen=chosen)
    watching, watch_schedules, watch_sensors = monitoring(settings, portfolio, chosen=chosen)
    by_itself = automation(settings, portfolio, reference)
    experiments = experiment_automation(settings, portfolio, chosen=chosen)
    experiment = dg.AssetSelection.assets(dg.AssetKey([portfolio.name, "challenger_experiment"]))
    return dg.Definitions(
        assets=_under(portfolio.name, dg.load_assets_from_modules([loan_book_module, *ASSETS])),
        asset_checks=_under(portfolio.name, dg.load_asset_checks_from_modules(CHECKS)),
        jobs=[
            *daily,
            *watching,
            *by_itself.jobs,
            *experiments.jobs,
            dg.define_asset_job(
                JOB,
                selection=dg.AssetSelection.all() - dg.AssetSelection.groups(DECISIONS) - experiment,
                hooks={end_mlflow_on_run_finished},
                description="From the raw loan book to the promoted, served model, every check on the way.",
                tags={"portfolio": portfolio.name},
            ),
            dg.define_asset_job(
                TRAINING_JOB,
                selection=experiment.upstream(),
                hooks={end_mlflow_on_run_finished},
                description="From the raw loan book to a judged challenger, which enters an experiment.",
                tags={"portfolio": portfolio.name},
            ),
            dg.define_asset_job(
                BATCH_JOB,
                selection=dg.AssetSelection.assets(dg.AssetKey([portfolio.name, "batch_scores"])),
                description="The applications of a day, scored by the champion and compared with answers one by one.",
                tags={"portfolio": portfolio.name},
            ),
        ],
        schedules=[*schedules, *watch_schedules, *by_itself.schedules],
        sensors=[*watch_sensors, *by_itself.sensors, experiments.sensor],
        resources={
            "io_manager": ArtefactIOManager(folder=str(settings.home / ARTEFACTS)),
            "portfolio": PortfolioResource(
                reference=reference,
                state=str(settings.home),
                source_options=options,
                clock_file=str(settings.clock_file) if settings.clock_file else None,
                pages_url=settings.pages_address(),
            ),
            "registry": registry,
            "decision_log": DecisionLogResource.of(settings, portfolio.name),
            "releases": ReleasesResource.of(settings, portfolio.name),
            "mlflow": dagster_mlflow_run(registry),
            "service": ServiceResource(portfolio=portfolio.name, url=f"http://{settings.host}:{settings.port}/metrics"),
            "bentos": BentoStore(home=str(settings.home / "bentoml")),
        },
        # A process a step would import everything again for each of some forty steps.
        executor=dg.in_process_executor,
    )


def _under(portfolio: str, definitions: Iterable[Any]) -> list[Any]:
    # The loaders' own `key_prefix` leaves out what a check reads besides its asset.
    names = {key for definition in definitions for key in {*definition.keys, *definition.keys_by_input_name.values()}}
    names |= {spec.asset_key for definition in definitions for spec in definition.check_specs}
    renamed = {key: dg.AssetKey([portfolio, *key.path]) for key in names}
    return [definition.with_attributes(asset_key_replacements=renamed) for definition in definitions]


def __getattr__(name: str) -> dg.Definitions:
    # Each code location is one attribute of this module, and builds only its own portfolio.
    settings = Settings()
    if name == "defs":
        return build_definitions(settings.portfolio, settings)
    if name in shipped_portfolios():
        return build_definitions(name, settings)
    raise AttributeError(name)
