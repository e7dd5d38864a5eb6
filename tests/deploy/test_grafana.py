"""Grafana's dashboards: readable, bound to no data source, and no panel without data."""

from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import BOARDS, DEPLOY, PANELS

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_its_numbers_are(panel: dict[str, Any]):
    """A unit, limits in colours, a name for each line, and the data source that was chosen at the top."""
    defaults = panel["fieldConfig"]["defaults"]

    assert DATA_SOURCE == panel["datasource"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    for target in panel["targets"]:
        assert DATA_SOURCE == target["datasource"]
        assert target["legendFormat"] or panel["type"] in ("stat", "table")


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_laid_out_in_rows_without_overlap(name: str):
    board = BOARDS[name]
    places = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]

    assert name == board["uid"]
    assert "row" == board["panels"][0]["type"]
    assert len(places) == len({panel["id"] for panel in board["panels"]})
    assert all(place["x"] + place["w"] <= 24 for _, place in places)
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one} and {other}"


def test_provisioning_names_the_source_and_the_folder():
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "credit.yml").read_text())["providers"]

    assert ("prometheus", True) == (source["type"], source["isDefault"])
    assert "file" == provider["type"]
