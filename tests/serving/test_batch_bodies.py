"""What the body of a batch may be, and that its applications are read as they were written."""

import asyncio
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_serving import batch as batches
from cde_serving.applications import InvalidApplicationError
from cde_serving.limits import MAX_BATCH_BODY
from tests.serving.helpers import Desk
from tests.serving.test_batch import BATCH, JSON, send


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"applications": {}}',
        b'{"applications": []}',
        b'{"applications": [{}], "more": 1}',
        b"{",
        b"\xff",
    ],
)
def test_what_is_no_batch_is_refused_whole(desk: Desk, body: bytes):
    refused = desk.client.post(BATCH, content=body, headers=JSON)

    assert 422 == refused.status_code
    assert ["applications"] == [problem["field"] for problem in refused.json()["detail"]]
    assert 0 == desk.scorer.log.count()


def test_a_batch_has_at_most_a_thousand_applications_and_eight_megabytes(desk: Desk):
    assert 422 == send(desk, [{}] * 1001).status_code
    assert [422] * 1000 == [one["status"] for one in send(desk, [{}] * 1000).json()["results"]]
    too_large = desk.client.post(BATCH, content=b" " * (MAX_BATCH_BODY + 1), headers=JSON)
    assert 413 == too_large.status_code
    assert 415 == desk.client.post(BATCH, content=b"{}").status_code


def test_a_field_given_twice_is_refused_in_a_batch_too(desk: Desk):
    body = b'{"applications": [{"customer_id": "a", "customer_id": "b", "idempotency_key": "k"}]}'

    (result,) = desk.client.post(BATCH, content=body, headers=JSON).json()["results"]

    assert (422, ["duplicate_key"]) == (result["status"], [problem["type"] for problem in result["detail"]])


def test_millions_of_tiny_applications_are_refused_without_being_kept(desk: Desk):
    """A list of them took half a second and as many megabytes before it was found too long."""
    body = b'{"applications":[' + b",".join([b"0"] * 500_000) + b"]}"

    async def refused() -> list[str]:
        with pytest.raises(InvalidApplicationError) as told:
            await batches.BatchScorer(desk.scorer).score(body)
        return [problem.type for problem in told.value.problems]

    tracemalloc.start()
    try:
        problems = asyncio.run(refused())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert ["batch_length"] == problems
    assert peak < 1_000_000


@settings(max_examples=30)
@given(
    items=st.lists(st.sampled_from([None, -1.5e300, "]}", '",[{', [[], [[]]], {"a": {"]": [1, "}"]}}]), max_size=5),
    spaces=st.text(" \t\n\r", max_size=3),
    escaped=st.booleans(),
)
def test_each_application_of_a_batch_is_read_as_it_was_written(items: list[Any], spaces: str, escaped: bool):
    name = "\\u0061pplications" if escaped else "applications"
    texts = [json.dumps(item) for item in items]
    body = f'{spaces}{{{spaces}"{name}"{spaces}:{spaces}[{f"{spaces},{spaces}".join(texts)}{spaces}]{spaces}}}{spaces}'

    if items:
        assert texts == [one.decode() for one in batches._applications(body.encode())]
    for wrong in (
        body + "]}",
        body[: -1 - len(spaces)],
        body + body,
        f"[{body}]",
        body.replace("]", ",]"),
        body.replace(name, "more"),
    ):
        with pytest.raises(InvalidApplicationError):
            batches._applications(wrong.encode())
