"""The asset graph of every shipped portfolio: complete, described, owned, and quick to load."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from cde_assets.decisions import MONITORED
from cde_assets.decisions.monitoring import MONITOR_JOB
from cde_assets.definitions import BATCH_JOB, JOB, TRAINING_JOB, build_definitions
from cde_assets.experiments.moving import PROMOTE_JOB
from cde_checks import features as feature_checks
from cde_checks import governance as governance_checks
from cde_checks import loan_book as loan_book_checks
from cde_checks import model as model_checks
from cde_checks.decisions import batch as batch_checks
from cde_checks.decisions import experiments as experiment_checks
from cde_checks.decisions import recorded as recorded_checks
from cde_checks.judgement import REPORTS, required_checks
from cde_domain.portfolio import load_portfolio, shipped_portfolios
from cde_serving.settings import Settings
from tests.lender import ROOT, environment

STAGES = ("loan_book", "features", "model", "governance", "release", "decisions")
BEFORE_DECISIONS = STAGES[:-1]
HEAVY = ("mlflow", "xgboost", "shap", "matplotlib", "sklearn", "bentoml", "fairlearn", "evidently")


@pytest.fixture(scope="module", params=shipped_portfolios())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def definitions(name: str, tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    home = tmp_path_factory.mktemp("home")
    return build_definitions(name, Settings(home=home, portfolio=name, _env_file=None))


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.path[-1]: spec for spec in definitions.resolve_all_asset_specs()}


@pytest.fixture(scope="module")
def checks(definitions: dg.Definitions) -> list[dg.AssetCheckSpec]:
    return [spec for check in definitions.asset_checks or () for spec in check.check_specs]


def test_the_definitions_can_be_loaded(definitions: dg.Definitions):
    dg.Definitions.validate_loadable(definitions)


def test_the_sources_of_the_portfolio_are_assets(name: str, specs: dict[str, dg.AssetSpec]):
    sources = {source.name for source in load_portfolio(name).sources}

    assert sources <= specs.keys()
    assert {key.path[-1] for key in (dep.asset_key for dep in specs["loan_book"].deps)} == sources


def test_every_asset_is_described_owned_and_in_a_stage(specs: dict[str, dg.AssetSpec]):
    for asset, spec in specs.items():
        assert spec.description, asset
        assert spec.owners, asset
        assert spec.group_name in STAGES, asset
        assert 1 <= len(spec.kinds) <= 3, asset


def test_every_stage_has_assets(specs: dict[str, dg.AssetSpec]):
    assert {spec.group_name for spec in specs.values()} == set(STAGES)


def test_the_assets_of_the_house_plan_are_there(specs: dict[str, dg.AssetSpec]):
    assert specs.keys() >= {"feature_table", "training_set", "holdout_set", "champion_model", "scoring_bento", *REPORTS}


def test_every_key_bears_the_name_of_the_portfolio(name: str, definitions: dg.Definitions):
    graph = definitions.resolve_asset_graph()

    assert all(len(key.path) == 2 and key.path[0] == name for key in graph.get_all_asset_keys())
    assert all(key.asset_key.path[0] == name for key in graph.asset_check_keys)


def test_every_input_is_made_by_the_graph(definitions: dg.Definitions):
    graph = definitions.resolve_asset_graph()

    assert graph.get_all_asset_keys() == graph.materializable_asset_keys


def test_every_check_is_described_and_about_an_asset_of_the_graph(
    specs: dict[str, dg.AssetSpec], checks: list[dg.AssetCheckSpec]
):
    assert checks
    for check in checks:
        assert check.asset_key.path[-1] in specs, check.name
        assert check.description, check.name


def test_every_stage_is_checked(specs: dict[str, dg.AssetSpec], checks: list[dg.AssetCheckSpec]):
    assert {specs[check.asset_key.path[-1]].group_name for check in checks} == set(STAGES)
    assert {specs[check.asset_key.path[-1]].group_name for check in checks if check.blocking} == set(BEFORE_DECISIONS)


def test_the_gate_asks_for_every_blocking_check_before_the_release(
    specs: dict[str, dg.AssetSpec], checks: list[dg.AssetCheckSpec]
):
    blocking = {
        (check.asset_key.path[-1], check.name)
        for check in checks
        if check.blocking and specs[check.asset_key.path[-1]].group_name != "release"
    }

    assert set(required_checks()) == blocking
    assert len(required_checks()) == len(blocking) > 10


def test_a_check_of_the_champion_is_the_only_kind_that_the_gate_does_not_wait_for(checks: list[dg.AssetCheckSpec]):
    left_out = {check.name for check in checks if check.blocking} - {check for _, check in required_checks()}

    assert left_out == {"bento_answers_like_the_champion"}


def test_the_champion_is_made_from_everything_that_the_gate_asks_about(name: str, definitions: dg.Definitions):
    graph = definitions.resolve_asset_graph()
    upstream = {
        key.path[-1]
        for key in dg.AssetSelection.assets(dg.AssetKey([name, "champion_model"])).upstream().resolve(graph)
    }

    assert {asset for asset, _ in required_checks()} <= upstream
    assert set(REPORTS) <= upstream


def test_the_jobs_lead_through_the_whole_graph_and_every_check(
    definitions: dg.Definitions, specs: dict[str, dg.AssetSpec], checks: list[dg.AssetCheckSpec]
):
    """To the release or an experiment, what is scored and what is watched by the day, and the winner's promotion."""
    released, tried = {"champion_model", "scoring_bento"}, {"challenger_experiment"}
    before = {asset for asset, spec in specs.items() if spec.group_name in BEFORE_DECISIONS}
    watched = {asset for asset, spec in specs.items() if MONITORED.items() <= spec.tags.items()}
    for name, inside in (
        (JOB, before - tried),
        (TRAINING_JOB, before - released),
        (PROMOTE_JOB, released),
        (BATCH_JOB, {"batch_scores"}),
        (MONITOR_JOB, watched),
    ):
        job = definitions.resolve_job_def(name)

        assert {key.path[-1] for key in job.asset_layer.executable_asset_keys} == inside
        found = {key.name for key in job.asset_layer.asset_graph.asset_check_keys}
        assert found == {check.name for check in checks if check.asset_key.path[-1] in inside}


def test_the_checks_lie_in_the_file_of_their_stage(specs: dict[str, dg.AssetSpec]):
    modules = {
        "loan_book": (loan_book_checks,),
        "features": (feature_checks,),
        "model": (model_checks,),
        "governance": (governance_checks,),
        "decisions": (batch_checks, experiment_checks, recorded_checks),
    }
    for stage, module in ((stage, module) for stage, files in modules.items() for module in files):
        found = [check for check in vars(module).values() if isinstance(check, dg.AssetChecksDefinition)]
        assert found
        for check in found:
            assert {specs[spec.asset_key.path[-1]].group_name for spec in check.check_specs} == {stage}


LOADING = """
import sys, time
started = time.perf_counter()
from cde_assets import definitions
definitions.{name}
print(f"{{time.perf_counter() - started:.1f}} s", *sorted({heavy!r} & sys.modules.keys()))
"""


def test_a_code_location_loads_without_the_heavy_libraries(name: str, tmp_path: Path):
    code = LOADING.format(name=name, heavy=set(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    seconds, _, *imported = done.stdout.split()
    print(f"the code location of {name} loaded in {seconds} s")
    assert imported == []


def test_an_attribute_that_is_no_portfolio_is_no_code_location():
    from cde_assets import definitions

    with pytest.raises(AttributeError, match="germna_credit"):
        definitions.germna_credit  # noqa: B018
