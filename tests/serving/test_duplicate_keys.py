"""A field that is given twice is found wherever it stands, and at little cost."""

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from cde_serving.applications import InvalidApplicationError, canonical, parse_application
from tests.serving.helpers import SCORE, Desk

BATCH = SCORE + "/batch"
JSON = {"content-type": "application/json"}


class Anything(BaseModel):
    """A model that takes every field, and writes more of them and more colons than it was given."""

    model_config = ConfigDict(extra="allow")


texts = st.text(st.sampled_from(':"\\{}[], aé\n0'), max_size=5)
spaces = st.sampled_from(["", " ", "\n\t"])


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[tuple[str, bool]]) -> tuple[str, bool]:
    """An object as it may be written, with whether a name stands twice in it or below."""
    names = draw(st.lists(texts, max_size=4))
    written, twice = [], len(set(names)) < len(names)
    for name in names:
        value, below = draw(values)
        twice = twice or below
        key = json.dumps(name, ensure_ascii=draw(st.booleans()))
        written.append(f"{draw(spaces)}{key}{draw(spaces)}:{draw(spaces)}{value}{draw(spaces)}")
    return "{" + ",".join(written) + "}", twice


def lists(values: st.SearchStrategy[tuple[str, bool]]) -> st.SearchStrategy[tuple[str, bool]]:
    """A list as it is written."""
    many = st.lists(values, max_size=3)
    return many.map(lambda items: ("[" + " , ".join(text for text, _ in items) + "]", any(twice for _, twice in items)))


plain = st.one_of(
    texts.map(lambda text: json.dumps(text, ensure_ascii=False)), st.sampled_from(["1", "-2.5e3", "null", "true"])
).map(lambda text: (text, False))
values = st.recursive(plain, lambda inner: st.one_of(objects(inner), lists(inner)), max_leaves=8)


@given(objects(values))
@example(('{"a":"00:00","a":"1"}', True))
@example(('{"a":1,"\\u0061":2}', True))
@example(('{"a":{"b":1,"c":2},"a":{"b":1}}', True))
@example(('{"a":' + "9" * 5000 + ',"a":1}', True))
def test_a_body_is_taken_if_and_only_if_no_field_stands_twice(written: tuple[str, bool]) -> None:
    """With spaces, escapes, colons in texts, lists of records and numbers that Python does not read."""
    body, twice = written[0].encode(), written[1]
    if not twice:
        parse_application(Anything, body)
        return
    with pytest.raises(InvalidApplicationError) as refused:
        parse_application(Anything, body)
    assert ["duplicate_key"] == [problem.type for problem in refused.value.problems]
    assert body == canonical(body)


def test_an_earlier_answer_is_not_that_of_a_body_with_a_duplicate(desk: Desk) -> None:
    """The same key with a field given twice is another request."""
    key = {**JSON, "idempotency-key": "k-1"}
    body = json.dumps(desk.example)
    first = desk.client.post(SCORE, content=body, headers=key)

    again = desk.client.post(SCORE, content=body.replace("{", '{"loan_amount": 1.0, ', 1), headers=key)

    assert (200, 422) == (first.status_code, again.status_code)


@pytest.mark.parametrize("first", ["[]", "[{}, {}]", "null", '[{"a": "]}"}]'])
@pytest.mark.parametrize("name", ["applications", "\\u0061pplications"])
def test_a_batch_whose_applications_are_given_twice_is_refused(desk: Desk, first: str, name: str) -> None:
    """None of the two lists is decided."""
    item = json.dumps(desk.example)

    refused = desk.client.post(BATCH, content=f'{{"{name}": {first}, "applications": [{item}]}}', headers=JSON)

    assert 422 == refused.status_code
    assert 0 == desk.scorer.log.count()
    spaced = f' {{ "{name}" :\n[ {item} , {item}\t] }} '
    assert 2 == desk.client.post(BATCH, content=spaced, headers=JSON).json()["answered"]


def test_many_names_cost_no_more_than_reading_them(desk: Desk) -> None:
    """6,800 names, the last given twice: half a second where every name was looked for among all."""
    body = "{" + ",".join(f'"{n:04}":1' for n in [*range(6800), 6799]) + "}"
    started = time.process_time()

    refused = desk.client.post(SCORE, content=body, headers=JSON)

    assert 422 == refused.status_code
    assert time.process_time() - started < 0.2


def test_very_many_problems_are_only_counted(desk: Desk) -> None:
    """Listing them would hold up everybody else."""
    refused = desk.score(**{f"{number:x}": 1 for number in range(6000)})

    assert ["too_many_problems"] == [problem["type"] for problem in refused.json()["detail"]]


def test_every_application_of_a_batch_gives_others_their_turn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long one of them takes to be read, nobody waits for two."""
    taken: list[int] = []
    request_of = desk.scorer.request_of

    def counted(*arguments: Any) -> Any:
        taken.append(turns)
        return request_of(*arguments)

    monkeypatch.setattr(desk.scorer, "request_of", counted)
    turns = 0

    async def both() -> None:
        nonlocal turns
        working = asyncio.create_task(desk.client.send("POST", BATCH, json={"applications": [{}] * 40}))
        while not working.done():
            await asyncio.sleep(0)
            turns += 1

    asyncio.run(both())

    assert 40 == len(set(taken))
