"""Tests for `POST /api/v1/credit/score`, in this process."""

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from cde_serving.decision_log import LogBusyError, LogUnavailableError, Record
from cde_serving.records.record import DEFAULT_TENANT
from tests.serving.helpers import SCORE, Desk, Releases
from tests.support import NAME

JSON = {"content-type": "application/json"}


class TestAnswers:
    """A valid application is decided, explained and recorded."""

    def test_the_answer_has_every_field_of_the_contract(self, desk: Desk) -> None:
        """No field of the published answer is missing, and none is added unnoticed."""
        answer = desk.score().json()

        assert {
            "decision_id", "customer_id", "applied_at", "score", "decision", "confidence", "explanation",
            "risk_factors", "reason_codes", "model_version", "policy_version", "portfolio", "variant",
        } == set(answer)  # fmt: skip
        assert {"decided_by", "space", "base", "contributions", "detail"} == set(answer["explanation"])

    def test_the_answer_names_who_when_and_with_what(self, desk: Desk) -> None:
        """Customer, date from the injected clock, portfolio, and the versions that decided."""
        answer = desk.score().json()
        bundle = desk.scorer.releases.serving
        assert bundle is not None

        assert "customer-1" == answer["customer_id"]
        assert "2026-03-02T12:00:00Z" == answer["applied_at"]
        assert (NAME, "champion", "1") == (answer["portfolio"], answer["variant"], answer["policy_version"])
        assert bundle.digest[:12] == answer["model_version"]

    def test_the_contributions_add_up_to_the_score(self, desk: Desk) -> None:
        """Base and contributions are the margin that the calibrator turned into the score."""
        answer = desk.score().json()
        bundle = desk.scorer.releases.serving
        assert bundle is not None
        calibrator = bundle.engine.model.calibrator

        margin = answer["explanation"]["base"] + sum(answer["explanation"]["contributions"].values())

        odds = calibrator.slope * margin + calibrator.intercept
        assert answer["score"] == pytest.approx(1 / (1 + 2.718281828459045**-odds), abs=2e-6)
        assert max(answer["score"], 1 - answer["score"]) == pytest.approx(answer["confidence"])

    def test_a_poor_application_is_rejected_with_reasons(self, desk: Desk) -> None:
        """A rejection has one to four reason codes."""
        answer = desk.score(
            annual_income=20000.0,
            loan_amount=18000.0,
            credit_history={"score": 400.0, "accounts": [{"balance": 20000.0}]},
        ).json()

        assert "REJECTED" == answer["decision"]
        assert "model" == answer["explanation"]["decided_by"]
        assert 1 <= len(answer["reason_codes"]) <= 4

    def test_a_knock_out_rule_gives_its_own_code(self, desk: Desk) -> None:
        """What a rule decides is not explained by the model."""
        answer = desk.score(credit_history={"score": 320.0, "accounts": []}).json()

        assert ("REJECTED", ["BUREAU_SCORE_TOO_LOW"]) == (answer["decision"], answer["reason_codes"])
        assert ("rule", "The bureau score is below 350") == (
            answer["explanation"]["decided_by"],
            answer["explanation"]["detail"],
        )

    def test_an_unknown_rule_input_goes_to_a_person(self, desk: Desk) -> None:
        """A thin file is neither knocked out nor waved through."""
        answer = desk.score(credit_history=None).json()

        assert ("MANUAL_REVIEW", ["RULE_INPUT_UNKNOWN"]) == (answer["decision"], answer["reason_codes"])

    def test_a_value_outside_the_trained_range_goes_to_a_person(self, desk: Desk) -> None:
        """Valid but unlike anything seen in training is no case for the model."""
        answer = desk.score(annual_income=9e7).json()

        assert ("MANUAL_REVIEW", ["OUTSIDE_TRAINED_RANGE"]) == (answer["decision"], answer["reason_codes"])

    def test_the_answer_is_recorded_to_the_byte(self, desk: Desk) -> None:
        """The recorded decision is the one that was answered, and can be read back."""
        answered = desk.score()
        decision_id = answered.json()["decision_id"]

        record = desk.scorer.log.get(decision_id, DEFAULT_TENANT)

        assert record is not None
        assert answered.content == record.payload.answer
        assert answered.content == desk.client.get(f"/api/v1/credit/decisions/{decision_id}").content

    def test_the_record_is_enough_to_decide_again(self, desk: Desk) -> None:
        """The recorded request gives the recorded features and score, bit for bit."""
        decision_id = desk.score(annual_income=61234.56, note='a "quoted" note').json()["decision_id"]
        record, bundle = desk.scorer.log.get(decision_id, DEFAULT_TENANT), desk.scorer.releases.serving
        assert record is not None
        assert bundle is not None

        application = bundle.portfolio.application.model_validate_json(record.payload.request)
        again = bundle.engine.decide(application, date.fromisoformat(record.applied_at[:10]))

        assert bundle.digest == record.versions.bundle
        assert (again.score, again.decision) == (record.payload.score, record.decision)
        assert again.features == record.payload.features
        assert again.contributions == record.payload.contributions

    @pytest.mark.parametrize("decision_id", ["0" * 32, "nonsense", "..%2f..%2fetc", "' OR 1=1 --"])
    def test_an_unknown_decision_is_not_found(self, desk: Desk, decision_id: str) -> None:
        """404 for whatever is no recorded decision's id."""
        assert 404 == desk.client.get(f"/api/v1/credit/decisions/{decision_id}").status_code

    def test_the_media_type_may_name_its_charset(self, desk: Desk) -> None:
        """`application/json; charset=utf-8` is JSON."""
        answer = desk.client.post(
            SCORE, content=json.dumps(desk.example), headers={"content-type": "Application/JSON; charset=utf-8"}
        )

        assert 200 == answer.status_code


INVALID_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "out of bounds": ({"annual_income": -123454321.0}, "annual_income"),
    "wrong type": ({"loan_amount": "123454321"}, "loan_amount"),
    "flag for a number": ({"loan_amount": True}, "loan_amount"),
    "unknown category": ({"loan_purpose": "123454321"}, "loan_purpose"),
    "unknown field": ({"income": 123454321}, "income"),
    "nested value": ({"credit_history": {"score": 123454321}}, "credit_history.score"),
    "item of a list": ({"credit_history": {"accounts": [{"balance": 1}, {"balance": -123454321}]}},
                       "credit_history.accounts.1.balance"),
    "missing": ({"customer_id": None}, "customer_id"),
    "bad identifier": ({"customer_id": "123454321; DROP"}, "customer_id"),
    "bad date": ({"employed_since": "123454321"}, "employed_since"),
    "timestamp for a date": ({"employed_since": 123454321}, "employed_since"),
    "NUL": ({"note": "123454321\u0000"}, "note"),
    "reversed text": ({"note": "123454321\u202e"}, "note"),
}  # fmt: skip

BROKEN_BODIES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{annual_income: 123454321}",
    "cut off": b'{"customer_id": "123454321", ',
    "not an object": b'["123454321"]',
    "not UTF-8": b'{"customer_id": "123454321\xff"}',
    "trailing data": b"{} 123454321",
    "deep": b"[" * 30000,
    "NaN": b'{"annual_income": NaN, "note": "123454321"}',
    "Infinity": b'{"annual_income": Infinity, "note": "123454321"}',
    "too large a number": b'{"annual_income": 1e400, "note": "123454321"}',
    "duplicate key": b'{"annual_income": 123454321, "annual_income": 60000}',
}


class TestRefusals:
    """What is no application is refused, and nothing is recorded."""

    @pytest.mark.parametrize(("changes", "field"), INVALID_FIELDS.values(), ids=INVALID_FIELDS)
    def test_an_invalid_field_is_named(self, desk: Desk, changes: dict[str, Any], field: str) -> None:
        """422 names the field and never repeats its value."""
        answer = desk.score(**changes)

        assert 422 == answer.status_code
        assert [field] == [problem["field"] for problem in answer.json()["detail"]]
        assert {"field", "message", "type"} == set(answer.json()["detail"][0])
        assert "123454321" not in answer.text
        assert 0 == desk.scorer.log.count()

    @pytest.mark.parametrize("body", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
    def test_a_broken_body_is_refused(self, desk: Desk, body: bytes) -> None:
        """422 for whatever is not one JSON object of finite numbers and distinct keys."""
        answer = desk.client.post(SCORE, content=body, headers=JSON)

        assert 422 == answer.status_code
        assert "123454321" not in answer.text
        assert 0 == desk.scorer.log.count()

    def test_a_duplicate_key_is_named(self, desk: Desk) -> None:
        """Which field was given twice is told."""
        body = json.dumps(desk.example).replace("{", '{"loan_amount": 1.0, ', 1)

        answer = desk.client.post(SCORE, content=body, headers=JSON)

        assert [("loan_amount", "duplicate_key")] == [
            (problem["field"], problem["type"]) for problem in answer.json()["detail"]
        ]

    def test_an_escaped_backslash_is_no_control_character(self, desk: Desk) -> None:
        r"""The six characters `\u0000` are text, not NUL."""
        assert 200 == desk.score(note="\\u0000").status_code

    @pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "multipart/form-data", "", "text/json"])
    def test_another_media_type_is_refused(self, desk: Desk, media_type: str) -> None:
        """415 unless the body is said to be JSON."""
        answer = desk.client.post(SCORE, content=json.dumps(desk.example), headers={"content-type": media_type})

        assert 415 == answer.status_code
        assert 0 == desk.scorer.log.count()

    def test_a_large_body_is_refused(self, desk: Desk) -> None:
        """413 above 64 KiB, and 200 just below."""
        body = json.dumps(desk.example).encode()

        assert 413 == desk.client.post(SCORE, content=body.ljust(65537), headers=JSON).status_code
        assert 200 == desk.client.post(SCORE, content=body.ljust(65536), headers=JSON).status_code

    def test_a_large_body_without_a_length_is_refused(self, desk: Desk) -> None:
        """A streamed body is cut off at the same size."""

        async def endless() -> Any:
            for _ in range(1000):
                yield b" " * 1024

        assert 413 == desk.client.post(SCORE, content=endless(), headers=JSON).status_code

    def test_many_problems_are_told_in_part(self, desk: Desk) -> None:
        """An answer to a hostile body stays small."""
        answer = desk.score(**{f"unknown_{number}": 1 for number in range(2000)})

        assert 50 == len(answer.json()["detail"])

    def test_the_name_of_an_unknown_field_is_not_repeated_unless_plain(self, desk: Desk) -> None:
        """Markup in a field's name is not sent back."""
        assert "(unprintable)" == desk.score(**{"<script>": 1}).json()["detail"][0]["field"]

    def test_another_method_is_refused(self, desk: Desk) -> None:
        """Decisions are asked for by POST."""
        assert 405 == desk.client.get(SCORE).status_code


class TestFailures:
    """Without a record there is no answer."""

    def test_before_the_first_promotion_the_command_is_told(
        self, open_desk: Callable[[Releases], Desk], releases: Releases
    ) -> None:
        """503 says what to run."""
        answer = open_desk(releases).score()

        assert 503 == answer.status_code
        assert {"status": "nothing promoted yet", "run": "make demo"} == answer.json()

    @pytest.mark.parametrize(("error", "wait"), [(LogBusyError("full"), "1"), (LogUnavailableError("no disk"), "5")])
    def test_a_decision_that_cannot_be_recorded_is_not_given(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception, wait: str
    ) -> None:
        """503 with a time to try again, and no decision in the body."""

        async def refuse(_: Record) -> None:
            raise error

        monkeypatch.setattr(desk.scorer.log, "record", refuse)

        answer = desk.score()

        assert 503 == answer.status_code
        assert wait == answer.headers["retry-after"]
        assert "decision_id" not in answer.text

    def test_an_unexpected_error_is_told_without_its_message(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Neither the answer nor the service's log repeats what an exception says."""

        def fail(*_: object) -> None:
            raise RuntimeError("income of customer-1 is 60000")

        monkeypatch.setattr("cde_serving.scorer.answer_to", fail)

        answer = desk.score()

        assert (500, {"detail": "Internal error"}) == (answer.status_code, answer.json())
        told = capsys.readouterr().out
        assert "RuntimeError" in told
        assert "customer-1" not in told
        assert 0 == desk.scorer.log.count()
