"""
The kill switch: whether decisions are taken automatically, as the decision log's last event about it says.

Each event names the one that it follows, so that a stop holds also where the resumption before it was recorded by a
machine whose clock is ahead. Of events that follow the same one, and of those of earlier versions, the later counts.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cde_domain.clock import Clock, utc_now
from cde_serving.records.record import Event
from cde_serving.records.schema import records
from cde_serving.watched import Watched

if TYPE_CHECKING:
    from cde_serving.decision_log import DecisionLog

POLL_SECONDS = 0.5
STALE_SECONDS = 2.0
EVENTS = 20  # that are looked at: what follows an event is among the newest, but for some clocks that are ahead

_newest = (
    sa.select(
        records.c.record_id,
        records.c.kind,
        records.c.recorded_at,
        records.c.decided_by,
        records.c.reason_codes,
        records.c.about,
    )
    .where(
        sa.text("kind IN ('stop_auto', 'resume_auto')"),  # as in the index: SQLite compares the words
        records.c.portfolio == sa.bindparam("of_portfolio"),
    )
    .order_by(records.c.recorded_at.desc(), records.c.kind.desc())  # of two at one moment the stop counts
    .limit(EVENTS)
)


@dataclass(frozen=True)
class SwitchState:
    """Whether automatic decisions are stopped, since when, by whom and why, and which event says so."""

    stopped: bool = False
    since: str | None = None
    by: str | None = None
    reason: str = ""
    event: str | None = None


def read_switch(engine: Engine, portfolio: str) -> SwitchState:
    """The state that the log of a portfolio gives."""
    with engine.connect() as connection:
        events = connection.execute(_newest, {"of_portfolio": portfolio}).all()
    if not events:
        return SwitchState()
    followed = {event.about for event in events}
    last = next(event for event in events if event.record_id not in followed)
    reasons = msgspec.json.decode(last.reason_codes) if last.reason_codes else [""]
    return SwitchState(last.kind == "stop_auto", last.recorded_at, last.decided_by, reasons[0], last.record_id)


class KillSwitch:
    """
    The switch as a running service follows it, in the database that it records to.

    So it holds for every process of a log, and after a restart. A state that could not be read for two seconds counts
    as stopped.
    """

    def __init__(self, engine: Engine, portfolio: str, read: Callable[[], SwitchState] | None = None) -> None:
        self._watched = Watched("kill switch", read or partial(read_switch, engine, portfolio), POLL_SECONDS)

    @property
    def stopped(self) -> bool:
        """Whether no decision may be taken automatically now."""
        return self._watched.value.stopped or self._watched.age > STALE_SECONDS

    @property
    def state(self) -> SwitchState:
        """What was read last."""
        return self._watched.value

    @property
    def problem(self) -> str | None:
        """Why the state cannot be read at the moment."""
        return self._watched.problem

    def close(self) -> None:
        """Stop following."""
        self._watched.close()


async def turn(
    log: "DecisionLog",
    portfolio: str,
    kind: Literal["stop_auto", "resume_auto"],
    *,
    by: str,
    reason: str = "",
    clock: Clock = utc_now,
) -> None:
    """
    Record a stop or a resumption; services follow within a second.

    Raises:
        LogBusyError, LogUnavailableError: it could not be recorded, so it does not hold.
    """
    before = await asyncio.to_thread(read_switch, log.read_engine, portfolio)
    await log.note(Event.of(kind, clock(), portfolio=portfolio, by=by, reason=reason, follows=before.event))
