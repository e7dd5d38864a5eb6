"""Many applications in one request: decided in passes of the engine, each recorded and answered as if it came alone."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from cde_domain.decisions.engine import Decision
from cde_domain.release import Bundle
from cde_serving.answers import answer_to
from cde_serving.applications import InvalidApplicationError, Problem, unique_keys
from cde_serving.decision_log import LogBusyError
from cde_serving.idempotency import BadKeyError, is_key
from cde_serving.limits import MAX_BODY, MOST_APPLICATIONS
from cde_serving.protected import parse_apart
from cde_serving.records.names import record_id_at
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.records.writer import LARGEST_COMMIT
from cde_serving.scorer import KeyedRequest, Scorer

MOST_BATCHES = 8
AT_ONCE = 16  # applications that are parsed, or decided, before other requests have their turn
KEY = "idempotency_key"

T = TypeVar("T")


@dataclass(slots=True)
class _Item:
    """One application on its way: `result` is its answer, or why it has none."""

    body: bytes
    request: KeyedRequest | None = None
    application: Any = None
    kept: bytes = b""
    protected: Mapping[str, str] | None = None
    result: bytes | Exception | None = None


class BatchScorer:
    """
    Scores batches, one after the other.

    Few applications are worked on at a time, and few records wait at a time, so that single requests go on being
    answered. An application that is refused stops no other one.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._turn = asyncio.Lock()
        self._batches = 0

    async def score(
        self, body: bytes, *, idempotency_key: str | None = None, tenant: str = DEFAULT_TENANT
    ) -> list[bytes | Exception]:
        """
        The recorded answer of each application in order, or the exception that `Scorer.score` would raise for it.

        An item may have an `idempotency_key` of its own. Without, a key of the whole batch stands for the item by its
        place, so that a batch that is sent again gets the same answers and decides what was not decided.

        Raises:
            InvalidApplicationError: the body is no batch; nothing was recorded.
            NothingPromotedError: no bundle is served yet.
            LogBusyError: too many batches wait.
        """
        if self._batches >= MOST_BATCHES:
            raise LogBusyError(f"{MOST_BATCHES} batches wait already")
        self._batches += 1
        try:
            async with self._turn:
                return await self._scored(_applications(body), idempotency_key, tenant)
        finally:
            self._batches -= 1

    async def _scored(self, bodies: list[bytes], key: str | None, tenant: str) -> list[bytes | Exception]:
        bundle = self._scorer.serving()
        applied_at = self._scorer.clock()
        items = [_Item(body) for body in bodies]
        for first, part in _parts(items, AT_ONCE):
            for place, item in enumerate(part, first):
                # No header holds a NUL, so that no client's own key is the key of an item.
                self._parse(item, bundle, None if key is None else f"{key}\0{place}", tenant)
            await asyncio.sleep(0)
        decided: list[tuple[_Item, Decision]] = []
        for _, part in _parts([item for item in items if item.application is not None], AT_ONCE):
            decided += _decided(part, bundle, applied_at)
            await asyncio.sleep(0)
        for _, commit in _parts(decided, LARGEST_COMMIT):
            await asyncio.gather(*(self._record(item, one, bundle, applied_at, tenant) for item, one in commit))
        return [await self._result(item, tenant) for item in items]

    def _parse(self, item: _Item, bundle: Bundle, key: str | None, tenant: str) -> None:
        model = bundle.portfolio.application
        try:
            if len(item.body) > MAX_BODY:
                raise InvalidApplicationError(
                    [Problem("body", f"An application has at most {MAX_BODY} bytes", "too_large")]
                )
            if KEY not in model.model_fields:
                item.body, key = _without_key(item.body, key)
            item.request = self._scorer.request_of(item.body, key, tenant)
            item.application, item.kept, item.protected = parse_apart(bundle.portfolio, item.body)
        except (BadKeyError, InvalidApplicationError) as error:
            item.result = error

    async def _record(self, item: _Item, decision: Decision, bundle: Bundle, applied_at: datetime, tenant: str) -> None:
        application = item.application
        answer = answer_to(application.customer_id, record_id_at(applied_at), applied_at, decision, bundle)
        try:
            item.result = await self._scorer.recorded(
                item.kept, answer, decision, bundle, item.request, tenant, item.protected
            )
        except Exception as error:  # told of this item alone
            item.result = error

    async def _result(self, item: _Item, tenant: str) -> bytes | Exception:
        if isinstance(item.result, InvalidApplicationError) and item.request is not None:
            try:
                return await self._scorer.answered_before(item.request, tenant) or item.result
            except Exception as error:  # told of this item alone
                return error
        assert item.result is not None
        return item.result


def _decided(items: Sequence[_Item], bundle: Bundle, applied_at: datetime) -> list[tuple[_Item, Decision]]:
    """Items with their decisions; one that a portfolio's code fails on takes no other with it."""
    try:
        decisions = bundle.engine.decide_all([item.application for item in items], applied_at.date())
    except Exception as error:
        if len(items) > 1:
            return [pair for item in items for pair in _decided([item], bundle, applied_at)]
        items[0].result = error
        return []
    return list(zip(items, decisions, strict=True))


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    applications: list[msgspec.Raw]


def _applications(body: bytes) -> list[bytes]:
    """
    The applications in the body of a batch, each as its JSON.

    Raises:
        InvalidApplicationError: it is no batch, or too large a one.
    """
    try:
        batch = msgspec.json.decode(body, type=_Batch)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refused("Body is no JSON object with a list of `applications` and nothing else", "batch") from None
    if not 1 <= len(batch.applications) <= MOST_APPLICATIONS:
        raise _refused(f"A batch has 1 to {MOST_APPLICATIONS} applications", "batch_length")
    return [bytes(application) for application in batch.applications]


def _refused(message: str, kind: str) -> InvalidApplicationError:
    return InvalidApplicationError([Problem("applications", message, kind)])


def _without_key(body: bytes, key: str | None) -> tuple[bytes, str | None]:
    """An item without its idempotency key, and the key that it goes by."""
    if KEY.encode() not in body:
        return body, key
    try:
        content = json.loads(body, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidApplicationError):
            raise
        return body, key  # the model says better what is wrong
    if not isinstance(content, dict) or KEY not in content:
        return body, key
    own = content.pop(KEY)
    if not (isinstance(own, str) and is_key(own)):
        raise BadKeyError
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass"), own


def _parts(items: Sequence[T], size: int) -> Iterator[tuple[int, Sequence[T]]]:
    for first in range(0, len(items), size):
        yield first, items[first : first + size]
