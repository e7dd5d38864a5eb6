"""The bento of a champion that was promoted alone is built by itself, and no other is built twice."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from cde_assets.definitions import build_definitions
from cde_assets.release import scoring_bento
from cde_serving.settings import Settings

CHAMPION, BENTO = dg.AssetKey("champion_model"), dg.AssetKey("scoring_bento")
CONDITION = scoring_bento.specs_by_key[BENTO].automation_condition


@dg.asset
def champion_model() -> None: ...


@dg.asset(name="scoring_bento", deps=[champion_model], automation_condition=CONDITION)
def bento() -> None: ...


class Evaluations:
    """The condition with its memory, evaluated over and over as the daemon does."""

    def __init__(self) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
        self._defs = dg.Definitions(assets=[champion_model, bento])
        self._cursor = None

    def promoted(self, *assets: dg.AssetsDefinition) -> None:
        """A run that makes these assets, as the job of all or somebody's choice of one does."""
        dg.materialize([champion_model, bento], selection=list(assets), instance=self.instance)

    def asked(self) -> int:
        """How many assets one evaluation asks for; what it asks for is made."""
        result = dg.evaluate_automation_conditions(self._defs, self.instance, cursor=self._cursor)
        self._cursor = result.cursor
        if result.total_requested:
            self.promoted(bento)
        return result.total_requested


@pytest.fixture
def daemon() -> Iterator[Evaluations]:
    evaluations = Evaluations()
    yield evaluations
    evaluations.instance.dispose()


def test_nothing_is_built_before_a_champion_is_there(daemon: Evaluations):
    assert [0, 0] == [daemon.asked(), daemon.asked()]


def test_a_champion_that_is_promoted_with_its_bento_needs_no_other(daemon: Evaluations):
    daemon.asked()
    daemon.promoted(champion_model, bento)

    assert [0, 0] == [daemon.asked(), daemon.asked()]


def test_a_champion_that_is_promoted_alone_gets_its_bento_once(daemon: Evaluations):
    daemon.promoted(champion_model, bento)
    daemon.asked()
    for _ in range(2):
        daemon.promoted(champion_model)

        assert [1, 0, 0] == [daemon.asked(), daemon.asked(), daemon.asked()]


@pytest.mark.parametrize(("chosen", "status"), [("german_credit", "RUNNING"), ("lending_club", "STOPPED")])
def test_it_is_looked_after_for_the_chosen_portfolio_without_a_click(tmp_path: Path, chosen: str, status: str):
    definitions = build_definitions("german_credit", Settings(home=tmp_path, portfolio=chosen, _env_file=None))

    sensor = definitions.resolve_sensor_def("bento_follows_champion")

    assert status == sensor.default_status.value
    assert not [one for one in definitions.sensors or () if one.name == "default_automation_condition_sensor"]
