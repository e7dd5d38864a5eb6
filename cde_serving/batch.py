"""Many applications in one request: decided in passes of the engine, each recorded and answered as if it came alone."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from cde_domain.decisions.engine import Decision
from cde_domain.release import Bundle
from cde_serving.applications import InvalidApplicationError, Problem, unique_keys
from cde_serving.assignment import Assigned
from cde_serving.deciding import decide_all
from cde_serving.decision_log import LogBusyError
from cde_serving.idempotency import BadKeyError, is_key
from cde_serving.limits import MAX_BODY, MOST_APPLICATIONS
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.records.writer import LARGEST_COMMIT
from cde_serving.scorer import KeyedRequest, Scorer

MOST_BATCHES = 8
AT_ONCE = 16  # applications that are parsed, or decided, before other requests have their turn
KEY = "idempotency_key"

T = TypeVar("T")


@dataclass(slots=True)
class _Item:
    """
    One application on its way.

    `lacking` says that the bureau is asked for a part of it; `result` is its answer, or why it has none.
    """

    body: bytes
    request: KeyedRequest | None = None
    lacking: bool = False
    assigned: Assigned | None = None
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
            await asyncio.gather(*(self._fetch(item, bundle, tenant) for item in part if item.lacking))
            await asyncio.sleep(0)
        decided: list[tuple[_Item, Decision]] = []
        for deciding, same in _by_bundle(items):
            for _, part in _parts(same, AT_ONCE):
                decided += self._decided(part, deciding, applied_at)
                await asyncio.sleep(0)
        for _, commit in _parts(decided, LARGEST_COMMIT):
            await asyncio.gather(*(self._record(item, one, applied_at, tenant) for item, one in commit))
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
            completed = self._scorer.parsed(bundle, item.body)
            if completed is None:
                item.lacking = True
            else:
                item.assigned = self._scorer.assigned(completed, bundle, tenant)
        except (BadKeyError, InvalidApplicationError) as error:
            item.result = error

    async def _fetch(self, item: _Item, bundle: Bundle, tenant: str) -> None:
        try:
            item.result = await self._scorer.answered_before(item.request, tenant)
            if item.result is None:
                completed = await self._scorer.fetched(bundle, item.body)
                item.assigned = self._scorer.assigned(completed, bundle, tenant)
        except Exception as error:  # told of this item alone
            item.result = error

    def _decided(self, items: Sequence[_Item], bundle: Bundle, applied_at: datetime) -> list[tuple[_Item, Decision]]:
        assigned = [item.assigned for item in items if item.assigned is not None]
        decisions = decide_all(
            bundle,
            [one.application for one in assigned],
            applied_at.date(),
            faults=[one.fault for one in assigned],
            stopped=self._scorer.switch.stopped,
        )
        return list(zip(items, decisions, strict=True))

    async def _record(self, item: _Item, decision: Decision, applied_at: datetime, tenant: str) -> None:
        assert item.assigned is not None
        answer = self._scorer.answer(item.assigned, decision, applied_at)
        try:
            item.result = await self._scorer.recorded(item.assigned, answer, decision, item.request, tenant)
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


def _by_bundle(items: Sequence[_Item]) -> list[tuple[Bundle, list[_Item]]]:
    """The items that can be decided, by the bundle that decides them."""
    found: dict[str, tuple[Bundle, list[_Item]]] = {}
    for item in items:
        if item.assigned is not None:
            bundle = item.assigned.bundle
            found.setdefault(bundle.digest, (bundle, []))[1].append(item)
    return list(found.values())


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
