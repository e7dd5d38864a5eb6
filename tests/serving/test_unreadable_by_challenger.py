"""A challenger whose code fails on an application leaves it to the champion, and takes no other with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import model_validator
from structlog.testing import capture_logs

from tests.serving.helpers import SCORE, Desk, Releases, wait_for
from tests.serving.test_experiments import start

FAILED_ON, TAKEN = [f"fails-{number}" for number in range(3)], [f"taken-{number}" for number in range(3)]


@pytest.fixture
def challenged(desk: Desk, releases: Releases, bundles: tuple[Path, Path]) -> Desk:
    """A desk with a challenger for everybody, which has a bug that some applications find."""
    start(releases, bundles[1], 1.0)
    plan = desk.scorer.plan
    assert plan is not None
    wait_for(lambda: plan.plan.challenger is not None, 2)
    challenger = plan.plan.challenger
    assert challenger is not None
    application: Any = challenger.portfolio.application

    class Buggy(application):
        @model_validator(mode="after")
        def _look_up(self) -> Self:
            if self.customer_id in FAILED_ON:
                raise KeyError(self.customer_id)
            return self

    challenger.engine.portfolio = replace(challenger.portfolio, application=Buggy)
    return desk


def test_the_champion_decides_what_the_challenger_cannot_read(challenged: Desk) -> None:
    """Alone and in a batch; a line of the log says so, without a value."""
    applications = [{**challenged.example, "customer_id": customer} for customer in [*FAILED_ON, *TAKEN]]

    with capture_logs() as lines:
        alone = [challenged.client.post(SCORE, json=application) for application in applications]
        batch = challenged.client.post(f"{SCORE}/batch", json={"applications": applications})

    expected = ["champion"] * len(FAILED_ON) + ["challenger"] * len(TAKEN)
    assert expected == [answer.json()["variant"] for answer in alone]
    assert expected == [result["answer"]["variant"] for result in batch.json()["results"]]
    told = [line for line in lines if line["event"] == "the challenger cannot read an application"]
    assert ["KeyError"] * 2 * len(FAILED_ON) == [line["error"] for line in told]
    assert "fails-" not in str(told)


def test_an_application_for_which_nobody_can_be_chosen_takes_no_other_with_it(
    challenged: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever choosing fails on, the rest of the batch is decided."""
    choose = challenged.scorer.chosen

    def failing(champion: Any, intake: Any, tenant: str) -> Any:
        if intake.application.customer_id in FAILED_ON:
            raise RuntimeError
        return choose(champion, intake, tenant)

    monkeypatch.setattr(challenged.scorer, "chosen", failing)
    applications = [{**challenged.example, "customer_id": customer} for customer in [*FAILED_ON, *TAKEN]]

    results = challenged.client.post(f"{SCORE}/batch", json={"applications": applications}).json()["results"]

    assert [500] * len(FAILED_ON) + [200] * len(TAKEN) == [result["status"] for result in results]
