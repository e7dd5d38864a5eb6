"""Tests for `cde_serving.observed`, `logs` and `metrics`: what is seen of requests, never growing with them."""

import json
import logging
import random
import re
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from cde_serving import scorer
from cde_serving.app import create_app
from cde_serving.logs import JsonLines, configure_logging
from cde_serving.observed import AccessLog
from tests.serving.helpers import NOON, SCORE, AppClient, Desk, Releases

DECISIONS = "/api/v1/credit/decisions"
HEXADECIMAL = re.compile("[0-9a-f]{32}")


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict]]]:
    """The lines that the service logged since the last look, as it writes them."""
    before = structlog.get_config()
    configure_logging("info")
    structlog.configure(cache_logger_on_first_use=False)
    yield lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    structlog.configure(**before)


def series(desk: Desk) -> dict[tuple[str, frozenset], float]:
    """Every sample of the page by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(desk.client.get("/metrics").text)
        for sample in family.samples
    }


def value(desk: Desk, name: str, **labels: str) -> float:
    """The sum of the samples of a name with these labels."""
    found = series(desk).items()
    return sum(number for (known, with_labels), number in found if known == name and labels.items() <= set(with_labels))


class TestRequestIds:
    """Every answer and line bears the request's name."""

    @pytest.mark.parametrize("given", ["req-1", "0af7651916cd43dd8448eb211c80319c", "a.B_9-"])
    def test_a_sane_id_is_the_callers_own(self, desk: Desk, given: str) -> None:
        answer = desk.client.request("POST", SCORE, json=desk.example, headers={"x-request-id": given})

        assert [given] == answer.headers.get_list("x-request-id")

    @pytest.mark.parametrize("given", ["", "two words", "x" * 65, 'a"b', "a\tb", "caf\u00e9", "{}"])
    def test_any_other_is_replaced(self, desk: Desk, given: str) -> None:
        """Nothing that could break a line of the log, or fill it."""
        headers = {"x-request-id": given.encode("latin-1")}
        answer = desk.client.request("POST", SCORE, json=desk.example, headers=headers)

        assert HEXADECIMAL.fullmatch(answer.headers["x-request-id"])

    def test_every_kind_of_answer_bears_one(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refused, unknown, too large and failed requests too; no two the same."""
        answers = [
            desk.score(),
            desk.score(annual_income="plenty"),
            desk.client.get("/nothing"),
            desk.client.get(SCORE),
            desk.client.post(SCORE, content=b"x" * 70_000, headers={"content-type": "application/json"}),
            desk.client.get("/metrics"),
        ]
        monkeypatch.setattr(desk.scorer.releases, "serving", object())
        answers.append(desk.score())

        assert [200, 422, 404, 405, 413, 200, 500] == [answer.status_code for answer in answers]
        assert 7 == len({answer.headers["x-request-id"] for answer in answers})

    def test_a_line_bears_the_id_of_its_request_and_of_no_other(self, desk: Desk, lines: Callable) -> None:
        desk.client.request("GET", "/nothing", headers={"x-request-id": "first"})
        structlog.get_logger().info("between")
        desk.client.request("GET", "/nothing", headers={"x-request-id": "second"})

        assert ["first", None, "second"] == [line.get("request_id") for line in lines()]


class TestLines:
    """One line for what failed, none for what went well, and never a value."""

    def test_what_went_well_is_counted_and_not_told(self, desk: Desk, lines: Callable) -> None:
        desk.score()

        assert [] == lines()

    def test_a_refused_request_is_told_by_route_method_and_status(self, desk: Desk, lines: Callable) -> None:
        """Not by its path, which holds whatever the caller wrote."""
        desk.score(annual_income=-4711.25, customer_id="Jane Doe")
        desk.client.get(f"{DECISIONS}/Jane-Doe-4711")

        (refused, unknown) = lines()
        assert ("request", SCORE, "POST", 422) == tuple(
            refused[name] for name in ("event", "route", "method", "status")
        )
        assert (f"{DECISIONS}/{{decision_id}}", 404) == (unknown["route"], unknown["status"])
        assert "4711" not in json.dumps([refused, unknown])

    def test_an_exception_is_told_by_type_and_place(
        self, desk: Desk, lines: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its message may quote the applicant."""

        def fail(*_: object) -> None:
            raise RuntimeError("income 4711.25 of Jane-Doe")

        monkeypatch.setattr(scorer, "answer_to", fail)
        assert 500 == desk.score().status_code

        failed, request = lines()
        assert ("request failed", "RuntimeError") == (failed["event"], failed["error"])
        assert "fail" in failed["at"][-1]
        assert failed["request_id"] == request["request_id"]
        assert "4711" not in json.dumps([failed, request])

    @pytest.mark.parametrize(("setting", "told"), [("problems", [404]), ("all", [200, 404]), ("off", [])])
    def test_how_much_is_told_is_a_setting(self, desk: Desk, lines: Callable, setting: AccessLog, told: list) -> None:
        client = AppClient(create_app(desk.scorer, setting))
        client.get("/health")
        client.get("/nothing")

        assert told == [line["status"] for line in lines()]

    def test_a_librarys_exception_is_told_without_its_message(self) -> None:
        """asyncio and BentoML log tracebacks whole."""
        try:
            raise ValueError("Jane-Doe-4711")
        except ValueError:
            record = logging.LogRecord("asyncio", logging.ERROR, "x.py", 1, "Task %s", ("failed",), sys.exc_info())

        line = json.loads(JsonLines().format(record))

        assert ("Task failed", "asyncio", "error", "ValueError") == tuple(
            line[name] for name in ("event", "logger", "level", "error")
        )
        assert "4711" not in json.dumps(line)


class TestMetrics:
    """What is counted, and that a caller cannot make the page grow."""

    def test_decisions_are_counted_by_outcome_reason_and_variant(self, desk: Desk) -> None:
        desk.score()
        desk.score(credit_history={"score": 310.0})  # below the policy's floor
        desk.score(loan_amount=9e6)  # outside what was seen in training

        for outcome, decided_by in (("APPROVED", "model"), ("REJECTED", "rule"), ("MANUAL_REVIEW", "fallback")):
            labels = {"decision": outcome, "decided_by": decided_by, "variant": "champion"}
            assert 1 == value(desk, "cde_decisions_total", **labels)
        assert 1 == value(desk, "cde_reason_codes_total", code="BUREAU_SCORE_TOO_LOW")
        assert 1 == value(desk, "cde_fallbacks_total", code="OUTSIDE_TRAINED_RANGE")
        assert 1 == value(desk, "cde_fallbacks_total")
        assert 3 == value(desk, "cde_score_count", variant="champion")

    def test_commits_replays_and_the_state_of_the_moment_are_told(self, desk: Desk) -> None:
        sent = {"json": desk.example, "headers": {"idempotency-key": "k-1"}}
        desk.client.post(SCORE, **sent)
        desk.client.post(SCORE, **sent)

        assert 1 == value(desk, "cde_idempotency_replays_total")
        assert 1 == value(desk, "cde_decisions_total")
        assert 2 == value(desk, "cde_commit_records_count") == value(desk, "cde_commit_seconds_count")
        assert (1, 0, 0, 0) == tuple(
            value(desk, name)
            for name in ("cde_ready", "cde_log_problem", "cde_queue_depth", "cde_queue_oldest_seconds")
        )
        serving = desk.scorer.releases.serving
        assert 1 == value(desk, "cde_release_info", bundle=serving.digest, policy_version="1", portfolio="tiny_loans")

    def test_who_is_not_let_in_is_counted_by_the_reason(self, desk: Desk) -> None:
        nobody = AppClient(create_app(desk.scorer))
        assert 401 == nobody.post(SCORE, json=desk.example).status_code

        assert 1 == value(desk, "cde_auth_failures_total", reason="key")
        assert 1 == value(desk, "cde_auth_failures_total")

    def test_a_service_without_a_release_is_not_ready(
        self, open_desk: Callable[[Releases], Desk], releases: Releases
    ) -> None:
        assert 0 == value(open_desk(releases), "cde_ready")

    def test_a_code_or_variant_that_nobody_declared_counts_as_other(self, desk: Desk) -> None:
        bundle = desk.scorer.releases.serving
        decision = bundle.engine.decide(_example(desk), NOON.date())
        for number in range(50):
            strange = decision.__class__(**{**vars(decision), "reason_codes": (f"CODE_{number}",)})
            desk.scorer.metrics.decided(strange, bundle, f"variant-{number}")
            desk.scorer.metrics.auth_failed(f"reason-{number}")

        assert 50 == value(desk, "cde_reason_codes_total", code="other")
        assert 50 == value(desk, "cde_decisions_total", variant="other")
        assert 50 == value(desk, "cde_auth_failures_total", reason="other")

    def test_hostile_requests_do_not_make_the_page_grow(self, desk: Desk) -> None:
        """Random paths, methods, keys, ids and bodies: the page has as many series after 600 as after 50."""
        generator = random.Random(4711)

        def attack(count: int) -> None:
            for _ in range(count):
                word = f"{generator.getrandbits(60):x}"
                for path in (f"/{word}", f"{DECISIONS}/{word}", f"/docs/assets/{word}", f"{SCORE}/{word}?{word}=1"):
                    desk.client.request("GET", path)
                    desk.client.request(f"X{word[:8].upper()}", path)
                headers = {"idempotency-key": word, "x-request-id": word, "user-agent": word}
                desk.client.request("POST", SCORE, json={**desk.example, word: word}, headers=headers)

        attack(6)
        desk.client.get("/metrics")  # so that it counts itself
        series_before = series(desk).keys()
        page_before = len(desk.client.get("/metrics").content)
        attack(60)

        assert series_before == series(desk).keys()
        assert len(desk.client.get("/metrics").content) < page_before + 2000  # the same series with longer numbers


def _example(desk: Desk):
    model = desk.scorer.releases.serving.portfolio.application
    return model.model_validate_json(json.dumps(desk.example))
