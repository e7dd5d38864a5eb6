"""What the OpenAPI document says of batches, and of all that follows a decision."""

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import BaseModel

from cde_domain.release import Bundle
from cde_serving.explanations import CounterfactualExplanation, FullExplanation
from cde_serving.follow_ups import ReviewBody, outcome_body
from cde_serving.limits import MOST_APPLICATIONS
from cde_serving.notices import Notice
from cde_serving.records.follow_ups import LoanResult, Review

EXPLANATIONS = ("full", "counterfactual")

DECISION = "/api/v1/credit/decisions/{decision_id}"

ANSWERS: tuple[Any, ...] = (Review, LoanResult, Notice, FullExplanation, CounterfactualExplanation)

HISTORY = {
    "type": "object",
    "required": ["decision_id", "decision", "standing", "outcome", "reviews", "outcomes"],
    "properties": {
        "decision_id": {"type": "string"},
        "decision": {"type": "string", "description": "What was answered"},
        "standing": {"type": "string", "description": "The verdict of the last review, or what was answered"},
        "outcome": {"type": "string", "nullable": True, "description": "The last that is known"},
        "reviews": {"type": "array", "items": {"$ref": "#/components/schemas/Review"}},
        "outcomes": {"type": "array", "items": {"$ref": "#/components/schemas/LoanResult"}},
    },
}

EXPLAIN = {
    "name": "explain",
    "in": "query",
    "required": False,
    "description": "`full` adds LIME and feature importance, `counterfactual` what to change for an approval.",
    "schema": {"type": "string", "enum": list(EXPLANATIONS)},
}

_ID = {
    "name": "decision_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}

_FAILED = {
    "400": "The Idempotency-Key is not usable",
    "404": "There is no such decision",
    "409": "A request with this Idempotency-Key is being answered",
    "410": "The customer's data was erased",
    "413": "The body is too large",
    "415": "The body is not application/json, or compressed",
    "422": "The body cannot be used, or its key was used for another; nothing was recorded",
    "503": "It could not be recorded, the decision cannot be read, or nothing is promoted yet",
}


def bodies(bundle: Bundle | None) -> tuple[type[BaseModel], ...]:
    """The models of what is sent."""
    label = bundle.portfolio.outcome if bundle else None
    return ReviewBody, outcome_body(label.good, label.bad) if label else outcome_body("good", "bad")


def batch_application(application: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an item of a batch: an application, which may bring a key of its own."""
    key = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
    return {**application, "properties": {**application.get("properties", {}), "idempotency_key": key}}


def follow_up_paths(key: Mapping[str, Any], example: Any) -> dict[str, Any]:
    """The paths, with the parameter of an idempotency key and an example of an application."""
    return {
        "/api/v1/credit/score/batch": {"post": _batch(key, example)},
        f"{DECISION}/review": {"post": _recorded("review", "Record a person's verdict", "ReviewBody", "Review", key)},
        f"{DECISION}/outcome": {
            "post": _recorded("outcome", "Record what became of the loan", "OutcomeBody", "LoanResult", key)
        },
        f"{DECISION}/history": {
            "get": _read("history", "Reviews and outcomes, oldest first", {"200": ("All that is known", HISTORY)})
        },
        f"{DECISION}/explanation": {"get": _explanation()},
        f"{DECISION}/notice": {"get": _notice("notice", "application/json", _named("Notice"))},
        f"{DECISION}/notice.html": {"get": _notice("notice_page", "text/html", {"type": "string"})},
    }


def _batch(key: Mapping[str, Any], example: Any) -> dict[str, Any]:
    item = {
        "type": "object",
        "required": ["index", "status"],
        "properties": {
            "index": {"type": "integer"},
            "status": {"type": "integer", "description": "What the application alone would have been answered with"},
            "answer": _named("Answer"),
            "detail": {"description": "Why there is no answer: problems of fields, or a sentence"},
        },
    }
    answered = {
        "type": "object",
        "required": ["answered", "results"],
        "properties": {"answered": {"type": "integer"}, "results": {"type": "array", "items": item}},
    }
    applications = {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_APPLICATIONS,
        # What is no application gets its error in the answer and leaves the others alone, so the batch may hold it.
        "items": {"anyOf": [_named("BatchApplication"), {}]},
    }
    body: dict[str, Any] = {
        "schema": {
            "type": "object",
            "required": ["applications"],
            "properties": {"applications": applications},
            "additionalProperties": False,
        }
    }
    if example is not None:
        body["example"] = {"applications": [example]}
    return {
        "operationId": "score_batch",
        "summary": f"Decide up to {MOST_APPLICATIONS} applications",
        "description": (
            "Each is decided and recorded as if it came alone. The key in the header stands for each application by "
            "its place; an application may bring an `idempotency_key` of its own. Each counts against the key's rate."
        ),
        "parameters": [key],
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": _response("An answer or an error for each, in order", answered),
            **_failures("400", "413", "415", "422", "503"),
        },
    }


def _recorded(name: str, summary: str, body: str, answer: str, key: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "description": "A correction is sent as one more; nothing is overwritten, and the last one stands.",
        "parameters": [_ID, key],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _named(body)}}},
        "responses": {"201": _response("Recorded", _named(answer)), **_failures(*_FAILED)},
    }


def _explanation() -> dict[str, Any]:
    explanation = {"anyOf": [_named("FullExplanation"), _named("CounterfactualExplanation")]}
    schema = {
        "type": "object",
        "required": ["decision_id", "explanation"],
        "properties": {"decision_id": {"type": "string"}, "explanation": explanation},
    }
    operation = _read("explanation", "Explain a recorded decision further", {"200": ("The explanation", schema)})
    operation["parameters"] = [_ID, {**EXPLAIN, "name": "kind", "required": True}]
    operation["responses"] |= {
        "409": _response("The bundle that decided is not here any more", _named("Failure")),
        "422": _response("There is no such kind of explanation", _named("Problems")),
        "503": _response("Too many explanations wait, or the decision cannot be read", _named("Failure")),
    }
    return operation


def _notice(name: str, media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    operation = _read(name, "The notice of adverse action", {})
    content = {media_type: {"schema": dict(schema)}}
    if name == "notice":
        content["text/html"] = {"schema": {"type": "string"}}
    operation["responses"] |= {
        "200": {"description": "The notice; a page where the Accept header prefers one", "content": content},
        "404": _response("There is no such decision, or it is not adverse", _named("Failure")),
        "503": _failures("503")["503"],
    }
    return operation


def _read(name: str, summary: str, answers: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    given = {status: _response(text, schema) for status, (text, schema) in answers.items()}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [_ID],
        "responses": {
            **given,
            **_failures("404", "410"),
            "503": _response("The decision cannot be read", _named("Failure")),
        },
    }


def _failures(*statuses: str) -> dict[str, Any]:
    schemas: dict[str, Any] = {
        "422": _named("Problems"),
        "503": {"anyOf": [_named("NotReady"), _named("Failure")]},
    }
    return {status: _response(_FAILED[status], schemas.get(status, _named("Failure"))) for status in statuses}


def _named(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _response(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": dict(schema)}}}


def example_of(bundle: Bundle | None) -> Any:
    """The portfolio's example, None before the first promotion."""
    return msgspec.to_builtins(bundle.portfolio.example) if bundle else None
