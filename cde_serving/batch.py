"""Many applications in one request: decided in passes of the engine, each recorded and answered as if it came alone."""

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from cde_domain.decisions.engine import Decision
from cde_domain.release import Bundle
from cde_serving.applications import InvalidApplicationError, Problem, unique_keys
from cde_serving.deciding import decide_all
from cde_serving.decision_log import KeyReusedError, LogBusyError
from cde_serving.idempotency import BadKeyError, is_key
from cde_serving.limits import BATCH_SECONDS, MAX_BODY, MOST_APPLICATIONS
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.scorer import Chosen, KeyedRequest, Scorer

MOST_BATCHES = 8
MOST_OF_A_TENANT = 2  # so that one that sends many leaves room for others
# Applications that wait for the bureau together, or are decided before other requests have their turn. A lookup costs
# the event loop a millisecond or two, which count against the deadline of all that were begun with it.
AT_ONCE = 16
RECORDED_AT_ONCE = 32  # a single request may wait for one such commit before its own
KEY = "idempotency_key"

T = TypeVar("T")

# Nothing stands before the list, or behind it, that another reader might take for the batch.
_BEFORE = re.compile(rb'[ \t\n\r]*+\{[ \t\n\r]*+("[^"]*+")[ \t\n\r]*+:[ \t\n\r]*+(?=\[)')
_AFTER = re.compile(rb"[ \t\n\r]*+\}[ \t\n\r]*+")
# A list of as many and one more: msgspec passes over the rest, of which `list` would make millions of small objects.
_LIST = msgspec.json.Decoder(
    msgspec.defstruct(
        "_List",
        [(f"item_{place}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for place in range(MOST_APPLICATIONS + 1)],
        array_like=True,
    )
)


@dataclass(slots=True)
class _Item:
    """One application on its way: `result` is its answer, or why it has none; `first` is the same request before it."""

    body: bytes
    key: str | None = None
    request: KeyedRequest | None = None
    chosen: Chosen | None = None
    result: bytes | Exception | None = None
    first: "_Item | None" = None


class OutOfTimeError(RuntimeError):
    """An application of a batch that was not reached in time: nothing was decided."""


class BatchScorer:
    """
    Scores batches that have a `place`, one after the other.

    Few applications are worked on at a time, and few records wait at a time, so that single requests go on being
    answered. An application that is refused stops no other one. What is decided is recorded as the batch goes on, and
    what is not reached within `BATCH_SECONDS` is left undecided, so that a batch is answered before its time limit.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._turn = asyncio.Lock()
        self._waiting: Counter[str] = Counter()

    @contextlib.contextmanager
    def place(self, tenant: str = DEFAULT_TENANT) -> Iterator[None]:
        """
        A place for one batch, to be had before its body is read: bodies that wait fill the memory.

        Raises:
            LogBusyError: too many batches wait, or too many of the tenant.
        """
        if self._waiting.total() >= MOST_BATCHES or self._waiting[tenant] >= MOST_OF_A_TENANT:
            raise LogBusyError(f"{self._waiting.total()} batches wait already")
        self._waiting[tenant] += 1
        try:
            yield
        finally:
            self._waiting[tenant] -= 1
            self._waiting += Counter()  # forgets tenants that have none

    async def score(
        self,
        body: bytes,
        *,
        idempotency_key: str | None = None,
        tenant: str = DEFAULT_TENANT,
        admit: Callable[[int], None] = lambda count: None,
        since: float | None = None,
    ) -> list[bytes | Exception]:
        """
        The recorded answer of each application in order, or the exception that `Scorer.score` would raise for it.

        An item may have an `idempotency_key` of its own. Without, a key of the whole batch stands for the item by its
        place, so that a batch that is sent again gets the same answers and decides what was not decided. A key given
        twice in a batch is one request sent twice. `admit` is told how many applications there are, and raises what it
        likes before any is worked on. The time limit counts from `since` (`time.monotonic`), or from now.

        Raises:
            InvalidApplicationError: the body is no batch; nothing was recorded.
            NothingPromotedError: no bundle is served yet.
            LogBusyError: this batch waited too long.
        """
        applications = _applications(body)
        admit(len(applications))
        until = (time.monotonic() if since is None else since) + BATCH_SECONDS
        async with self._in_turn(until):
            return await self._scored(applications, idempotency_key, tenant, until)

    @contextlib.asynccontextmanager
    async def _in_turn(self, until: float) -> AsyncIterator[None]:
        """Wait for the batches before this one."""
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await self._turn.acquire()
        except TimeoutError:
            raise LogBusyError("the batches before this one took too long") from None
        try:
            yield
        finally:
            self._turn.release()

    async def _scored(self, bodies: list[bytes], key: str | None, tenant: str, until: float) -> list[bytes | Exception]:
        champion = self._scorer.serving()
        applied_at = self._scorer.clock()
        # No header holds a NUL, so that no client's own key is the key of an item.
        items = [_Item(body, None if key is None else f"{key}\0{place}") for place, body in enumerate(bodies)]
        firsts: dict[KeyedRequest, _Item] = {}
        owners: set[str] = set()
        for _, part in _parts(items, RECORDED_AT_ONCE):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until - time.monotonic()):
                    await self._taken_in(part, champion, tenant, firsts)
            _refuse_reused_keys(part, owners)
            await self._recorded([item for item in part if item.chosen is not None], applied_at, tenant)
            if time.monotonic() >= until:
                break
        return [await self._result(item, tenant) for item in items]

    async def _taken_in(
        self, items: Sequence[_Item], champion: Bundle, tenant: str, firsts: dict[KeyedRequest, _Item]
    ) -> None:
        """Read applications and complete them; `firsts` are the first items of each request."""
        for _, part in _parts(items, AT_ONCE):
            async with asyncio.TaskGroup() as taken:
                for item in part:
                    self._know(item, champion, tenant)
                    if item.request is not None and (first := firsts.setdefault(item.request, item)) is not item:
                        item.first = first
                    if item.result is None and item.first is None:
                        taken.create_task(self._take_in(item, champion, tenant))
                    await asyncio.sleep(0)  # an item at a time: one that is refused may take milliseconds

    async def _recorded(self, items: Sequence[_Item], applied_at: datetime, tenant: str) -> None:
        """Decide applications and record the decisions."""
        decided: list[tuple[_Item, Chosen, Decision]] = []
        for _, part in _parts(items, AT_ONCE):
            decided += self._decided(part, applied_at)
            await asyncio.sleep(0)
        for _, commit in _parts(decided, RECORDED_AT_ONCE):
            await asyncio.gather(*(self._record(*one, applied_at, tenant) for one in commit))

    def _know(self, item: _Item, champion: Bundle, tenant: str) -> None:
        """Find out which request an item is."""
        try:
            if len(item.body) > MAX_BODY:
                raise InvalidApplicationError(
                    [Problem("body", f"An application has at most {MAX_BODY} bytes", "too_large")]
                )
            if KEY not in champion.portfolio.application.model_fields:
                item.body, item.key = _without_key(item.body, item.key)
            item.request = self._scorer.request_of(item.body, item.key, tenant)
        except Exception as error:  # told of this item alone
            item.result = error

    async def _take_in(self, item: _Item, champion: Bundle, tenant: str) -> None:
        try:
            intake = await self._scorer.taken_in(champion, item.body, item.request, tenant)
            if isinstance(intake, bytes):
                item.result = intake
            else:
                item.chosen = self._scorer.chosen(champion, intake, tenant)
        except Exception as error:  # told of this item alone
            item.result = error

    def _decided(self, items: Sequence[_Item], applied_at: datetime) -> Iterator[tuple[_Item, Chosen, Decision]]:
        """Items with who decided and what, the applications of each bundle in one pass."""
        by_bundle: dict[str, list[tuple[_Item, Chosen]]] = {}
        for item in items:
            assert item.chosen is not None
            by_bundle.setdefault(item.chosen.bundle.digest, []).append((item, item.chosen))
        for pairs in by_bundle.values():
            intakes = [chosen.intake for _, chosen in pairs]
            stopped = self._scorer.switch.stopped
            decisions = decide_all(pairs[0][1].bundle, intakes, applied_at.date(), stopped=stopped)
            for (item, chosen), decision in zip(pairs, decisions, strict=True):
                yield item, chosen, decision

    async def _record(self, item: _Item, chosen: Chosen, decision: Decision, applied_at: datetime, tenant: str) -> None:
        try:
            item.result = await self._scorer.answered(chosen, decision, applied_at, item.request, tenant)
        except Exception as error:  # told of this item alone
            item.result = error

    async def _result(self, item: _Item, tenant: str) -> bytes | Exception:
        if item.first is not None:
            item.result = (
                item.first.result or OutOfTimeError()
            )  # it stands before it, so that it is known if there is one
            if isinstance(item.result, bytes):
                self._scorer.metrics.replayed()
            assert item.result is not None
            return item.result
        if item.result is None:
            item.result = OutOfTimeError()
        if isinstance(item.result, InvalidApplicationError) and item.request is not None:
            try:
                item.result = await self._scorer.answered_before(item.request, tenant) or item.result
            except Exception as error:  # told of this item alone
                item.result = error
        return item.result


def _refuse_reused_keys(items: Sequence[_Item], owners: set[str]) -> None:
    """Let the first application that can be decided have an idempotency key, as if the others came after it."""
    for item in items:
        if item.chosen is None or item.key is None:
            continue
        if item.key in owners:
            item.chosen, item.result = None, KeyReusedError()
        owners.add(item.key)


def _applications(body: bytes) -> list[bytes]:
    """
    The applications in the body of a batch, each as its JSON.

    Raises:
        InvalidApplicationError: it is no batch, or too large a one.
    """
    opening, end = _BEFORE.match(body), body.rfind(b"]") + 1
    try:
        if opening is None or not _AFTER.fullmatch(body, end) or msgspec.json.decode(opening[1]) != "applications":
            raise _no_batch()
        items = msgspec.structs.astuple(_LIST.decode(memoryview(body)[opening.end() : end]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _no_batch() from None
    applications = [bytes(item) for item in items if item is not msgspec.UNSET]
    if not 1 <= len(applications) <= MOST_APPLICATIONS:
        raise _refused(f"A batch has 1 to {MOST_APPLICATIONS} applications", "batch_length")
    return applications


def _no_batch() -> InvalidApplicationError:
    return _refused("Body is no JSON object with a list of `applications` and nothing else", "batch")


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
