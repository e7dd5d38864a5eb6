"""Prometheus' configuration and rules: checked by promtool, and held by a real Prometheus over a real service."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cde_assets.cli import app
from tests.deploy.conftest import CONFIG, DEPLOY, JOB, Prometheus, needs_prometheus
from tests.serving.helpers import wait_for
from tests.support import REFERENCE

RULES = DEPLOY / "prometheus" / "rules"
CASES = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))


def rules(file: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((RULES / file).read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_prometheus
def test_configuration_and_rules_are_prometheus_own_language():
    told = promtool("check", "config", CONFIG)

    assert f"{len(ALERTS)} rules found" in told
    assert f"{len(rules('recording.yml'))} rules found" in told


@needs_prometheus
def test_each_alert_fires_and_is_silent_as_the_cases_say():
    assert "SUCCESS" in promtool("test", "rules", *CASES)


def test_the_cases_have_every_alert_firing_and_silent():
    cases = [case for file in CASES for case in yaml.safe_load(file.read_text())["tests"]]
    asked = [check for case in cases for check in case["alert_rule_test"]]

    assert set(ALERTS) == {check["alertname"] for check in asked if check.get("exp_alerts")}
    assert set(ALERTS) == {check["alertname"] for check in asked if not check.get("exp_alerts")}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_happened_and_where_to_read_on(name: str):
    alert = ALERTS[name]
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (DEPLOY.parent / page).read_text(encoding="utf-8"), re.MULTILINE)

    assert alert["labels"]["severity"] in ("critical", "warning")
    assert len(alert["annotations"]["summary"]) > 20
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert f"`{name}`" in (DEPLOY.parent / page).read_text(encoding="utf-8")


@needs_prometheus
def test_every_rule_is_evaluated_and_every_recording_has_values(prometheus: Prometheus):
    found = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]

    assert len(ALERTS) + len(rules("recording.yml")) == len(found)
    assert {"ok"} == {rule["health"] for rule in found}
    for rule in rules("recording.yml"):
        values = prometheus.query(f'{rule["record"]}{{job="{JOB}"}}')
        assert any(value == value for value in values), rule["record"]


@needs_prometheus
def test_every_metric_that_a_rule_asks_for_is_on_the_services_page(prometheus: Prometheus):
    page = prometheus.server.client.get("/metrics").text
    own = {rule["record"] for rule in rules("recording.yml")}
    text = " ".join(rule["expr"] for file in ("recording.yml", "alerts.yml") for rule in rules(file))
    for record in own:
        text = text.replace(record, "")

    asked = set(re.findall(r"\b(?:cde|process)_[a-z_]+", text))

    assert asked
    assert not {name for name in asked if f"\n{name}{{" not in page and f"\n{name} " not in page}


@needs_prometheus
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
