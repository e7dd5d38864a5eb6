"""From a request body to a validated application, or to what is wrong with it."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

MOST_PROBLEMS = 50
MOST_LISTED = 5000  # pydantic lists all or none, and 20,000 take longer than the rest of the request
LONGEST_NAME = 200
DEEPEST = 64  # objects and lists within each other; a body with no more of them in all need not be walked

# NUL, which databases cut texts at, and the characters that change the direction of text under a reviewer's eyes.
_FORBIDDEN = re.compile("[\u0000\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# The same in a JSON body, literal or escaped; it may find too much (an escaped backslash before `u0000`), never too
# little.
_SUSPICIOUS = re.compile(
    rb"\\u(?:0000|061[cC]|200[eEfF]|202[a-eA-E]|206[6-9])|\xd8\x9c|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]"
)
# A number of 5,000 digits is JSON, and no reason to leave the rest of a body unread.
_read = partial(json.loads, parse_int=str)
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
        refuse_duplicate_keys(body)
        raise InvalidApplicationError(_problems(error)) from None
    if not _surely_unique(body):
        try:
            _read(body, object_pairs_hook=unique_keys)
        except InvalidApplicationError:
            raise
        except (ValueError, RecursionError):  # what two readers disagree on is not decided
            raise InvalidApplicationError([Problem("body", "JSON cannot be read", "json_invalid")]) from None
    return application, application.model_dump_json(exclude_unset=True).encode()


def canonical(body: bytes) -> bytes:
    """A JSON body without the freedom of spaces and order; another body, or one with a duplicate key, as it is."""
    try:
        if not _surely_unique(body):
            _read(body, object_pairs_hook=unique_keys)
        return msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    except (ValueError, RecursionError):
        return body


def _problems(error: ValidationError) -> list[Problem]:
    if error.error_count() > MOST_LISTED:
        return [Problem("body", f"Body has {error.error_count()} problems, too many to tell", "too_many_problems")]
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return [Problem(_name(problem["loc"]), _message(problem), problem["type"]) for problem in problems[:MOST_PROBLEMS]]


def _message(problem: Any) -> str:
    # The message of a validator that the portfolio's author wrote may quote the value.
    return "Value is not allowed" if problem["type"] in ("value_error", "assertion_error") else problem["msg"]


def _name(location: tuple[int | str, ...]) -> str:
    name = ".".join(str(part) for part in location) or "body"
    # The name of an unknown field is the sender's text.
    return name if len(name) <= LONGEST_NAME and _PLAIN_NAME.fullmatch(name) else "(unprintable)"


def refuse_duplicate_keys(body: bytes) -> None:
    """
    Two readers of `{"income": 1, "income": 9}` may see two applications; pydantic takes the last.

    Raises:
        InvalidApplicationError: a field is given twice.
    """
    if _surely_unique(body):
        return
    try:
        _read(body, object_pairs_hook=unique_keys)
    except InvalidApplicationError:
        raise
    except (ValueError, RecursionError):
        pass  # the model says better what is wrong


def _surely_unique(body: bytes) -> bool:
    """
    Whether a JSON body has as many colons as what is read of it, so that no field is given twice.

    Of a field that is given twice one is read, and the other's colon is missing. Only an escaped colon could make up
    for it, so a body with escapes is parsed again, at the price of a validation.
    """
    if b"\\" in body:
        return False
    try:
        return msgspec.json.encode(msgspec.json.decode(body)).count(b":") == body.count(b":")
    except (ValueError, RecursionError):
        return False


def _refuse_depth(body: bytes) -> None:
    """A list within a list a thousand times over costs a reader more than it costs the sender."""
    try:
        level = [_read(body)]
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
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidApplicationError([Problem(_name((name,)), "Field is given twice", "duplicate_key")])
            seen.add(name)
    return record


def _refuse_forbidden_characters(body: bytes) -> None:
    try:
        content = _read(body)
    except (ValueError, RecursionError):
        return  # the model says better what is wrong
    found = (place for place, text in _texts(content) if _FORBIDDEN.search(text))
    if places := list(islice(found, MOST_PROBLEMS)):
        raise InvalidApplicationError(
            [Problem(_name(place), "Text holds a control character", "forbidden_character") for place in places]
        )


def _texts(content: Any) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Every text with its place, names of fields among them."""
    waiting: list[tuple[tuple[int | str, ...], Any]] = [((), content)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, dict):
            yield from (((*place, name), name) for name in value)
            waiting += [((*place, name), item) for name, item in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [((*place, position), item) for position, item in reversed(list(enumerate(value)))]
