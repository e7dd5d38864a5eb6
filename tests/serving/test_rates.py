"""How often a key may ask."""

import time

import httpx
import pytest

from cde_serving.access.keys import rate_of
from tests.serving.asking import ask, let_in
from tests.serving.helpers import SCORE, Desk, bearer, issue_key, wait_for


class TestRates:
    """How often a key may ask."""

    def test_a_key_that_asks_too_often_is_told_when_to_come_again(self, desk: Desk) -> None:
        """429 for it, and not for others."""
        key = let_in(desk, issue_key(desk.scorer.log, "read", rate="3/hour"))

        answers = [ask(desk, key) for _ in range(4)]

        assert [404, 404, 429, 429] == [answer.status_code for answer in answers]
        assert 3500 < int(answers[-1].headers["retry-after"]) <= 3600
        assert 200 == desk.score().status_code

    def test_a_rate_bounds_decisions_and_not_batches_alone(self, desk: Desk) -> None:
        """A batch counts its applications, and fits whole or not at all."""
        key = let_in(desk, issue_key(desk.scorer.log, "score", "read", rate="5/hour"))  # one is spent on this

        def batch(size: int) -> httpx.Response:
            return desk.client.post(f"{SCORE}/batch", json={"applications": [desk.example] * size}, headers=bearer(key))

        fits, full = batch(2), batch(3)

        assert (200, 429) == (fits.status_code, full.status_code)
        assert 3500 < int(full.headers["retry-after"]) <= 3600
        assert 2 == desk.scorer.log.count()
        assert 200 == batch(1).status_code  # the refused batch counted as one request
        assert 429 == batch(1).status_code

    def test_a_batch_that_no_window_holds_is_told_so(self, desk: Desk) -> None:
        """Coming again would not help."""
        key = let_in(desk, issue_key(desk.scorer.log, "score", rate="2/hour"))

        answer = desk.client.post(f"{SCORE}/batch", json={"applications": [desk.example] * 3}, headers=bearer(key))

        assert (422, "batch_above_rate") == (answer.status_code, answer.json()["detail"][0]["type"])
        assert "2 per 1 hour" in answer.json()["detail"][0]["message"]
        assert 0 == desk.scorer.log.count()

    def test_a_rate_is_given_again_when_its_time_has_passed(self, desk: Desk) -> None:
        """A second for a rate a second."""
        key = let_in(desk, issue_key(desk.scorer.log, "read", rate="1/second"))

        wait_for(lambda: ask(desk, key).status_code == 429, 1)
        wait_for(lambda: ask(desk, key).status_code == 404, 2)

    def test_a_clock_that_is_set_back_locks_nobody_out(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """The window would stay open until the clock has caught up."""
        key = let_in(desk, issue_key(desk.scorer.log, "read", rate="1/second"))
        wait_for(lambda: ask(desk, key).status_code == 429, 1)
        monkeypatch.setattr(time, "time", lambda: 1.0)

        wait_for(lambda: ask(desk, key).status_code == 404, 2)

    def test_a_rate_is_written_as_people_write_it(self) -> None:
        """A number and a time."""
        assert [(100, 1), (5000, 3600)] == [
            (rate.amount, rate.get_expiry()) for rate in map(rate_of, ("100/second", "5000 per hour"))
        ]
