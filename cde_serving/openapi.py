"""The OpenAPI document, built from the application model that is being served."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from pydantic import BaseModel

from cde_domain.release import Bundle
from cde_serving.access import security
from cde_serving.access.routes import Guarded
from cde_serving.answers import Answer
from cde_serving.limits import MAX_BODY
from cde_serving.openapi_follow_ups import ANSWERS, EXPLAIN, batch_application, bodies, example_of, follow_up_paths
from cde_serving.protected import schema_of

VERSION = "3.0.3"  # the newest that the bundled Swagger UI renders

_REFERENCE = "#/components/schemas/{}"

_PROBLEMS = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message", "type"],
                "properties": {
                    "field": {"type": "string", "example": "credit_history.score"},
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        }
    },
}
_FAILURE = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
_NOT_READY = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "string"},
        "run": {"type": "string"},
        "problem": {"type": "string"},
        "auth": {"type": "string"},
    },
}
# What an application's free text may hold: neither NUL nor characters that change the direction of text.
_TEXT = r"^[^\u0000\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]*$"

_LINKS = {
    "decision": {"operationId": "decision", "parameters": {"decision_id": "$response.body#/decision_id"}},
}


def openapi_document(bundle: Bundle | None, routes: Sequence[Guarded]) -> dict[str, Any]:
    """
    The description of the service; without a bundle an application is any object.

    Who may ask what, and how a request without permission is answered, comes from the routes.
    """
    application, schemas = _application(bundle)
    (answer, *_), components = msgspec.json.schema_components(
        [Answer, *ANSWERS], ref_template="#/components/schemas/{name}"
    )
    schemas |= {name: _to_3_0(schema) for name, schema in components.items()}
    schemas["BatchApplication"] = batch_application(
        schemas[bundle.portfolio.application.__name__] if bundle else application
    )
    for model in bodies(bundle):
        schemas |= _schemas_of(model)
    schemas |= {"Problems": _PROBLEMS, "Failure": _FAILURE, "NotReady": _NOT_READY}
    body: dict[str, Any] = {"schema": application}
    if bundle:
        body["example"] = msgspec.to_builtins(bundle.portfolio.example)
    title = f"Credit decisions: {bundle.portfolio.title}" if bundle else "Credit decisions"
    document: dict[str, Any] = {
        "openapi": VERSION,
        "info": {
            "title": title,
            "version": bundle.digest[:12] if bundle else "nothing promoted",
            "description": bundle.portfolio.description if bundle else "Nothing is promoted yet.",
        },
        "paths": {
            "/api/v1/credit/score": {
                "post": {
                    "operationId": "score",
                    "summary": "Decide an application",
                    "parameters": [_key(required=False), EXPLAIN],
                    "requestBody": {"required": True, "content": {"application/json": body}},
                    "responses": {
                        "200": {
                            **_response("The decision, recorded before it is answered", answer),
                            "links": _LINKS,
                        },
                        "400": _response("The Idempotency-Key is not usable", _named("Failure")),
                        "409": _response("A request with this Idempotency-Key is being answered", _named("Failure")),
                        "410": _response("The decision under this Idempotency-Key was erased", _named("Failure")),
                        "413": _response(f"The body has more than {MAX_BODY} bytes", _named("Failure")),
                        "415": _response("The body is not application/json, or compressed", _named("Failure")),
                        "422": _response(
                            "The body is no application, or its key was used for another; nothing was recorded",
                            _named("Problems"),
                        ),
                        "503": _response(
                            "Nothing is promoted yet, or the decision could not be recorded or read back",
                            {"anyOf": [_named("NotReady"), _named("Failure")]},
                        ),
                    },
                }
            },
            "/api/v1/credit/decisions": {
                "get": {
                    "operationId": "decision_by_key",
                    "summary": "Find out what became of a request that timed out",
                    "parameters": [_key(required=True)],
                    "responses": {
                        "200": _response("The answer, byte for byte", answer),
                        "400": _response("The Idempotency-Key is not usable", _named("Failure")),
                        "404": _response(
                            "Nothing was decided under this key: send the request again", _named("Failure")
                        ),
                        "409": _response("The request is being answered", _named("Failure")),
                        "410": _response("The decision was erased", _named("Failure")),
                        "503": _response(
                            "Decisions cannot be read at the moment, or this one was changed", _named("Failure")
                        ),
                    },
                }
            },
            "/api/v1/credit/decisions/{decision_id}": {
                "get": {
                    "operationId": "decision",
                    "summary": "Read a recorded decision",
                    "parameters": [
                        {
                            "name": "decision_id",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                        }
                    ],
                    "responses": {
                        "200": _response("The answer, byte for byte", answer),
                        "404": _response("There is no such decision", _named("Failure")),
                        "410": _response("The decision was erased", _named("Failure")),
                        "503": _response(
                            "Decisions cannot be read at the moment, or this one was changed", _named("Failure")
                        ),
                    },
                }
            },
            **follow_up_paths(_key(required=False), example_of(bundle)),
            "/health": _probe("health", "Is the process alive?", {"200": "It is"}),
            "/ready": _probe(
                "ready",
                "Can it decide?",
                {"200": "What is served", "503": "Nothing promoted, or nothing can be recorded"},
            ),
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Counters for Prometheus",
                    "responses": {
                        "200": {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}
                    },
                }
            },
        },
        "components": {"schemas": schemas, "securitySchemes": security.SCHEMES},
    }
    security.describe(document["paths"], routes, _response("", _named("Failure"))["content"])
    return document


def _application(bundle: Bundle | None) -> tuple[dict[str, Any], dict[str, Any]]:
    if bundle is None:
        return {"type": "object"}, {}
    model = bundle.portfolio.application
    schemas = _schemas_of(model)
    schemas[model.__name__]["properties"] |= schema_of(bundle.portfolio)
    return _named(model.__name__), schemas


def _schemas_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs", {})
    return {name: _to_3_0(part) for name, part in {**parts, model.__name__: schema}.items()}


def _key(*, required: bool) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": required,
        "description": "Names the request: sent again with the same body it gets the same answer, decided once.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    }


def _named(schema: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(schema)}


def _response(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": dict(schema)}}}


def _probe(name: str, summary: str, statuses: Mapping[str, str]) -> dict[str, Any]:
    responses = {status: _response(text, {"type": "object"}) for status, text in statuses.items()}
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _to_3_0(schema: Any) -> Any:
    """JSON Schema 2020-12, as pydantic and msgspec write it, in the dialect of OpenAPI 3.0."""
    if isinstance(schema, list):
        return [_to_3_0(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for keyword, value in schema.items():
        result |= _keyword_in_3_0(keyword, value)
    if schema.get("type") == "string" and not {"pattern", "format", "enum", "const"} & schema.keys():
        result["pattern"] = _TEXT
    if "$ref" in result and len(result) > 1:
        result["allOf"] = [{"$ref": result.pop("$ref")}]  # OpenAPI 3.0 ignores what stands beside a reference
    return result


def _keyword_in_3_0(keyword: str, value: Any) -> dict[str, Any]:
    match keyword:
        case "properties":
            return {keyword: {name: _to_3_0(item) for name, item in value.items()}}
        case "anyOf":
            return _alternatives(value)
        case "const":
            return {"enum": [value]}
        case "examples":
            return {"example": value[0]}
        case "exclusiveMinimum" | "exclusiveMaximum":
            return {keyword.replace("exclusiveM", "m"): value, keyword: True}
        case "unit" | "pii" | "purpose" | "source" | "actionable":
            return {f"x-{keyword}": value} if value is not None else {}
        case "default" | "example" | "enum":
            return {keyword: value}
        case _:
            return {keyword: _to_3_0(value)}


def _alternatives(options: list[Any]) -> dict[str, Any]:
    real = [_to_3_0(option) for option in options if option != {"type": "null"}]
    if len(real) == len(options):
        return {"anyOf": real}
    if len(real) == 1 and "type" in real[0]:
        return {**real[0], "nullable": True}
    return {"anyOf": [*real, {"type": "object", "nullable": True, "enum": [None]}]}  # `nullable` needs a type beside it
