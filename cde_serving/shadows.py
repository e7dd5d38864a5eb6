"""Shadow decisions: what other bundles would have decided, recorded off the path of the answer."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec
import structlog

from cde_domain.decisions.engine import Routing
from cde_domain.decisions.variants import Variant
from cde_domain.release import Bundle
from cde_serving.answers import answer_to, record_of
from cde_serving.applications import InvalidApplicationError, parse_application
from cde_serving.deciding import decide
from cde_serving.decision_log import DecisionLog, Record
from cde_serving.intake import Intake
from cde_serving.records.names import record_id_at
from cde_serving.records.record import Payload
from cde_serving.records.versions import VersionsOf

WAITING_LIMIT = 512
LARGEST_BATCH = 32
CLOSE_SECONDS = 3.0

log = structlog.get_logger()

Fate = Literal["recorded", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Seen:
    """An application that was decided and answered."""

    decision_id: str
    tenant: str
    request: bytes
    fetched: tuple[str, ...]
    fault: Routing | None
    applied_at: datetime
    bundles: tuple[Bundle, ...]


class Shadows:
    """
    Lets shadow bundles decide what was answered, in a thread of its own.

    What comes while too many wait is dropped and counted: no answer ever waits for a shadow. The kill switch does not
    reach shadows, which nobody is answered.
    """

    def __init__(
        self,
        decisions: DecisionLog,
        versions: VersionsOf,
        count: Callable[[Fate], None] = lambda fate: None,
        waiting_limit: int = WAITING_LIMIT,
    ) -> None:
        self._log = decisions
        self._versions = versions
        self._count = count
        self._queue: queue.Queue[Seen | None] = queue.Queue(waiting_limit)
        self._thread = threading.Thread(target=self._decide_all, name="shadows", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many applications wait."""
        return self._queue.qsize()

    def offer(self, seen: Seen) -> None:
        """Take an application in, or drop it if too many wait."""
        try:
            self._queue.put_nowait(seen)
        except queue.Full:
            for _ in seen.bundles:
                self._count("dropped")

    def close(self) -> None:
        """Decide what waits, and end; what is not recorded in `CLOSE_SECONDS` is not waited for."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)

    def _decide_all(self) -> None:
        with asyncio.Runner() as runner:
            while (first := self._queue.get()) is not None:
                batch, ended = [first], False
                while len(batch) < LARGEST_BATCH and not self._queue.empty():
                    if (item := self._queue.get()) is None:
                        ended = True
                        break
                    batch.append(item)
                runner.run(self._record(batch))
                if ended:
                    return

    async def _record(self, batch: list[Seen]) -> None:
        taken: list[Record] = []
        for seen in batch:
            for bundle in seen.bundles:
                try:
                    taken.append(self._decided(seen, bundle))
                except InvalidApplicationError:  # the shadow asks for more than the champion does
                    self._count("failed")
                except Exception as error:  # nothing that a shadow does may end the thread
                    self._failed(error)
                time.sleep(0)  # the thread that answers goes first
        results = await asyncio.gather(*map(self._log.record, taken), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                self._failed(result)
            else:
                self._count("recorded")

    def _failed(self, error: BaseException) -> None:
        self._count("failed")
        log.warning("shadow not recorded", error=type(error).__name__)

    def _decided(self, seen: Seen, bundle: Bundle) -> Record:
        application, request = parse_application(bundle.portfolio.application, seen.request)
        decision = decide(bundle, Intake(application, request, fault=seen.fault), seen.applied_at.date())
        record_id = record_id_at(seen.applied_at)
        answer = answer_to(
            application.customer_id, record_id, seen.applied_at, decision, bundle, variant=Variant.SHADOW
        )
        payload = Payload(
            customer_id=answer.customer_id,
            request=request,
            features=decision.features,
            score=answer.score,
            answer=msgspec.json.encode(answer),
            fetched=seen.fetched,
            about=seen.decision_id,
        )
        return record_of(
            answer, decision.decided_by, payload, self._versions(bundle), kind="shadow", tenant=seen.tenant
        )
