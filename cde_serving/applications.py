"""From a request body to a validated application, or to what is wrong with it."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

MOST_PROBLEMS = 50
LONGEST_NAME = 200
DEEPEST = 64  # objects and lists within each other; a body with no more of them in all need not be walked

# NUL, which databases cut texts at, and the characters that change the direction of text under a reviewer's eyes.
_FORBIDDEN = re.compile("[\u0000\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# The same in a JSON body, literal or escaped; it may find too much (an escaped backslash before `u0000`), never too
# little.
_SUSPICIOUS = re.compile(
    rb"\\u(?:0000|061[cC]|200[eEfF]|202[a-eA-E]|206[6-9])|\xd8\x9c|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]"
)
_PLAIN_NAME = re.compile(r"[\w.\- ]*", re.ASCII)


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field, without its value."""

    field: str
    message: str
    type: str


class InvalidApplicationError(ValueError):
    """A body that is no application of the portfolio."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(", ".join(sorted({problem.field for problem in problems})))
        self.problems = problems


def parse_application(model: type[BaseModel], body: bytes) -> tuple[Any, bytes]:
    """
    The application in a JSON body, and what is kept of it: its fields as the model writes them, unset ones left out.

    Raises:
        InvalidApplicationError: broken JSON, too deep a nesting, a duplicate key, a forbidden character, or whatever
            the model refuses.
    """
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        _refuse_depth(body)
    if _SUSPICIOUS.search(body):
        _refuse_forbidden_characters(body)
    try:
        application = model.model_validate_json(body)
    except ValidationError as error:
        _refuse_duplicate_keys(body)
        raise InvalidApplicationError(_problems(error)) from None
    request = application.model_dump_json(exclude_unset=True).encode()
    # A field given twice leaves a colon that the request does not have. Nothing that is written without escapes has
    # fewer colons in the body than in the request, so equal numbers prove that no field is; parsing again costs more
    # than a validation.
    if b"\\" in body or body.count(b":") != request.count(b":"):
        _refuse_duplicate_keys(body)
    return application, request


def canonical(body: bytes) -> bytes:
    """A JSON body without the freedom of spaces and order; another body as it is."""
    try:
        return msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    except (ValueError, RecursionError):
        return body


def _problems(error: ValidationError) -> list[Problem]:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return [Problem(_name(problem["loc"]), _message(problem), problem["type"]) for problem in problems[:MOST_PROBLEMS]]


def _message(problem: Any) -> str:
    # The message of a validator that the portfolio's author wrote may quote the value.
    return "Value is not allowed" if problem["type"] in ("value_error", "assertion_error") else problem["msg"]


def _name(location: tuple[int | str, ...]) -> str:
    name = ".".join(str(part) for part in location) or "body"
    # The name of an unknown field is the sender's text.
    return name if len(name) <= LONGEST_NAME and _PLAIN_NAME.fullmatch(name) else "(unprintable)"


def _refuse_duplicate_keys(body: bytes) -> None:
    """Two readers of `{"income": 1, "income": 9}` may see two applications; pydantic takes the last."""
    try:
        json.loads(body, object_pairs_hook=unique_keys)
    except InvalidApplicationError:
        raise
    except (ValueError, RecursionError):
        pass  # the model says better what is wrong


def _refuse_depth(body: bytes) -> None:
    """A list within a list a thousand times over costs a reader more than it costs the sender."""
    try:
        level = [json.loads(body)]
        for _ in range(DEEPEST):
            level = [item for outer in level for item in _items(outer)]
            if not level:
                return
        too_deep = any(isinstance(item, dict | list) for item in level)
    except RecursionError:
        too_deep = True
    except ValueError:
        return  # the model says better what is wrong
    if too_deep:
        raise InvalidApplicationError([Problem("body", f"JSON is nested more than {DEEPEST} deep", "too_deep")])


def _items(value: Any) -> Collection[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of `json.loads`, if no field is given twice."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidApplicationError([Problem(_name((twice,)), "Field is given twice", "duplicate_key")])
    return record


def _refuse_forbidden_characters(body: bytes) -> None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return  # the model says better what is wrong
    places = [place for place, text in _texts(content, ()) if _FORBIDDEN.search(text)]
    if places:
        raise InvalidApplicationError(
            [Problem(_name(place), "Text holds a control character", "forbidden_character") for place in places]
        )


def _texts(value: Any, place: tuple[int | str, ...]) -> Iterator[tuple[tuple[int | str, ...], str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield (*place, name), name
            yield from _texts(item, (*place, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _texts(item, (*place, position))
