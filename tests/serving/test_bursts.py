"""Applications that come together are decided in one pass, each as if it came alone."""

import asyncio
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from cde_domain.decisions.engine import Decision
from cde_domain.release import Bundle, load_bundle
from cde_serving.deciding import LARGEST_BURST, Decider
from cde_serving.intake import Intake
from tests.serving.helpers import SCORE, Desk

TODAY = date(2026, 3, 2)


@pytest.fixture
def bundle(desk: Desk) -> Bundle:
    served = desk.scorer.releases.serving
    assert served is not None
    return served


@pytest.fixture
def passes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many applications each pass of the engine had."""
    sizes: list[int] = []
    decide_all = bundle.engine.decide_all

    def counted(applications: Any, applied_at: date) -> list[Decision]:
        sizes.append(len(applications))
        return decide_all(applications, applied_at)

    monkeypatch.setattr(bundle.engine, "decide_all", counted)
    return sizes


def intake(desk: Desk, bundle: Bundle, **changes: Any) -> Intake:
    return Intake(bundle.portfolio.application.model_validate({**desk.example, **changes}, strict=False), b"{}")


def incomes(desk: Desk, bundle: Bundle, count: int) -> list[Intake]:
    return [intake(desk, bundle, annual_income=20_000.0 + 1000 * number) for number in range(count)]


async def together(decider: Decider, bundle: Bundle, intakes: list[Intake]) -> list[Decision]:
    return await asyncio.gather(*(decider.decide(bundle, one, TODAY) for one in intakes))


def test_a_burst_is_one_pass_with_the_answers_of_many(desk: Desk, bundle: Bundle, passes: list[int]) -> None:
    """Eight applicants cost one pass, and none of them gets another's decision."""
    intakes = incomes(desk, bundle, 8)

    decisions = asyncio.run(together(Decider(lambda: False), bundle, intakes))

    assert [8] == passes
    assert [bundle.engine.decide(one.application, TODAY) for one in intakes] == decisions


def test_a_long_queue_is_decided_in_parts(desk: Desk, bundle: Bundle, passes: list[int]) -> None:
    """No pass holds the event loop for long."""
    asyncio.run(together(Decider(lambda: False), bundle, incomes(desk, bundle, 3 * LARGEST_BURST)))

    assert [LARGEST_BURST] * 3 == passes


def test_a_client_that_leaves_takes_nobody_with_it(desk: Desk, bundle: Bundle) -> None:
    """The others of the burst are answered."""
    intakes = incomes(desk, bundle, 3)

    async def one_leaves() -> list[Decision | BaseException]:
        decider = Decider(lambda: False)
        tasks = [asyncio.create_task(decider.decide(bundle, one, TODAY)) for one in intakes]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, gone, last = asyncio.run(one_leaves())

    assert isinstance(gone, asyncio.CancelledError)
    assert [bundle.engine.decide(intakes[place].application, TODAY) for place in (0, 2)] == [first, last]


def test_what_fails_for_one_fails_for_one(desk: Desk, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The applicant whose features overflow goes to a person, their neighbours are decided."""
    decide_all = bundle.engine.decide_all

    def overflowing(applications: Any, applied_at: date) -> list[Decision]:
        if any(one.annual_income == 21_000.0 for one in applications):
            raise OverflowError
        return decide_all(applications, applied_at)

    monkeypatch.setattr(bundle.engine, "decide_all", overflowing)

    decisions = asyncio.run(together(Decider(lambda: False), bundle, incomes(desk, bundle, 3)))

    assert [False, True, False] == [one.reason_codes == ("DECISION_FAILED",) for one in decisions]


def test_bundles_and_dates_are_kept_apart(desk: Desk, bundle: Bundle, bundles: tuple[Path, Path]) -> None:
    """Champion and challenger decide on their own customers, and midnight is in no one's burst."""
    challenger = load_bundle(bundles[1], bundles[1].name)
    (one,) = incomes(desk, bundle, 1)
    asked = [(bundle, TODAY), (challenger, TODAY), (bundle, TODAY + timedelta(days=4000))]

    async def all_at_once() -> list[Decision]:
        decider = Decider(lambda: False)
        return await asyncio.gather(*(decider.decide(of, one, day) for of, day in asked))

    decisions = asyncio.run(all_at_once())

    assert [of.engine.decide(one.application, day) for of, day in asked] == decisions
    assert decisions[0] != decisions[1]


def test_a_failed_decision_is_told_under_the_id_of_its_own_request(
    desk: Desk, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a burst the line in the log names the request that failed, not the one that came first."""
    decide_all = bundle.engine.decide_all

    def overflowing(applications: Any, applied_at: date) -> list[Decision]:
        if any(one.annual_income == 21_000.0 for one in applications):
            raise OverflowError
        return decide_all(applications, applied_at)

    monkeypatch.setattr(bundle.engine, "decide_all", overflowing)

    async def burst() -> list[int]:
        answers = await asyncio.gather(
            *(
                desk.client.send(
                    "POST",
                    SCORE,
                    json={**desk.example, "annual_income": 20_000.0 + 1000 * number},
                    headers={"x-request-id": f"request-{number}"},
                )
                for number in range(3)
            )
        )
        return [answer.status_code for answer in answers]

    with capture_logs(processors=[merge_contextvars]) as lines:
        statuses = asyncio.run(burst())

    assert [200] * 3 == statuses
    assert ["request-1"] == [line["request_id"] for line in lines if line["event"] == "decision failed"]


def test_a_stop_of_automatic_decisions_holds_for_a_whole_burst(desk: Desk, bundle: Bundle) -> None:
    """What is decided after the stop goes to a person, also if it came before."""
    decisions = asyncio.run(together(Decider(lambda: True), bundle, incomes(desk, bundle, 3)))

    assert {("AUTOMATIC_DECISIONS_STOPPED",)} == {one.reason_codes for one in decisions}
