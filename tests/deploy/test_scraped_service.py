"""A real Prometheus over a real service: no rule without values, no panel without data, an alert within seconds."""

import re
from typing import Any

import pytest
from typer.testing import CliRunner

from cde_assets.cli import app
from tests.deploy.conftest import ALERTS, BOARDS, JOB, PANELS, Prometheus, needs_prometheus, rules
from tests.serving.helpers import wait_for
from tests.support import REFERENCE

pytestmark = needs_prometheus


def as_asked(expression: str) -> str:
    """An expression as Grafana sends it: one portfolio, all processes, the smallest window for rates."""
    for variable, value in (("$job", JOB), ("$instance", ".*"), ("$__rate_interval", "30s")):
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize("panel", PANELS)
def test_every_query_of_a_panel_returns_data_from_a_running_service(prometheus: Prometheus, panel: dict[str, Any]):
    for target in panel["targets"]:
        values = prometheus.query(as_asked(target["expr"]))
        assert any(value == value for value in values), target["expr"]


@pytest.mark.parametrize("name", BOARDS)
def test_the_choices_at_the_top_are_filled_from_the_service(prometheus: Prometheus, name: str):
    for variable in BOARDS[name]["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
            assert all(found[label] for found in prometheus.api("series", **{"match[]": as_asked(series)}))
            assert prometheus.api("series", **{"match[]": as_asked(series)})


def test_every_rule_is_evaluated_and_every_recording_has_values(prometheus: Prometheus):
    found = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]

    assert len(ALERTS) + len(rules("recording.yml")) == len(found)
    assert {"ok"} == {rule["health"] for rule in found}
    for rule in rules("recording.yml"):
        values = prometheus.query(f'{rule["record"]}{{job="{JOB}"}}')
        assert any(value == value for value in values), rule["record"]


def test_every_metric_that_a_rule_asks_for_is_on_the_services_page(prometheus: Prometheus):
    page = prometheus.server.client.get("/metrics").text
    own = {rule["record"] for rule in rules("recording.yml")}
    text = " ".join(rule["expr"] for file in ("recording.yml", "alerts.yml") for rule in rules(file))
    for record in own:
        text = text.replace(record, "")

    asked = set(re.findall(r"\b(?:cde|process)_[a-z_]+", text))

    assert asked
    assert not {name for name in asked if f"\n{name}{{" not in page and f"\n{name} " not in page}


def test_a_stop_of_automatic_decisions_is_an_alert_within_seconds_and_a_healthy_service_raises_none(
    prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
):
    """From the command through a real process and a real Prometheus to the alert, and back."""
    monkeypatch.setenv("CDE_HOME", str(prometheus.server.releases.store.folder.parent))
    monkeypatch.setenv("CDE_PORTFOLIO", REFERENCE)

    def firing() -> set[str]:
        return {
            alert["labels"]["alertname"] for alert in prometheus.api("alerts")["alerts"] if alert["state"] == "firing"
        }

    assert set() == firing()
    assert 0 == CliRunner().invoke(app, ["stop-auto", "--reason", "a drill"]).exit_code
    wait_for(lambda: firing() == {"CreditAutomaticDecisionsStopped"}, 5)
    assert 0 == CliRunner().invoke(app, ["resume-auto"]).exit_code
    wait_for(lambda: firing() == set(), 5)
