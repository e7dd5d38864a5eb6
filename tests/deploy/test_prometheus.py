"""Prometheus' configuration and rules: checked by promtool, and held by a real Prometheus over a real service."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import ALERTS, CONFIG, DEPLOY, needs_prometheus, rules

CASES = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))


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
