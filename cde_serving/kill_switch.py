"""
The kill switch: whether decisions are taken automatically, as the decision log's last event about it says.

Each event names the one that it follows, and the last is the one that nothing follows. So a stop holds also where the
resumption before it was recorded by a machine whose clock is ahead. Only of events that follow the same one, and of
those of earlier versions, which follow none, does the later count.
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
from cde_serving.records.database import LogUnavailableError
from cde_serving.records.record import Event
from cde_serving.records.schema import records
from cde_serving.watched import Watched

if TYPE_CHECKING:
    from cde_serving.decision_log import DecisionLog

POLL_SECONDS = 0.5
STALE_SECONDS = 2.0
KINDS = ("stop_auto", "resume_auto")

_follower, _sibling = records.alias(), records.alias()


def _is_followed(event: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.exists().where(_follower.c.about == event.c.record_id, _follower.c.kind.in_(KINDS)).correlate(event)


_of_switch = (
    sa.text("records.kind IN ('stop_auto', 'resume_auto')"),  # as in the index: SQLite compares the words
    records.c.portfolio == sa.bindparam("of_portfolio"),
)
_any = sa.select(records.c.record_id).where(*_of_switch).limit(1)
_last = (
    sa.select(records.c.record_id, records.c.kind, records.c.recorded_at, records.c.decided_by, records.c.reason_codes)
    .where(
        *_of_switch,
        ~_is_followed(records),
        # Of two that follow the same event one lost once the other was followed.
        ~sa.exists()
        .where(_sibling.c.about == records.c.about, _sibling.c.kind.in_(KINDS), _is_followed(_sibling))
        .correlate(records),
    )
    # Those of earlier versions follow nothing. Of two at one moment the stop counts.
    .order_by(records.c.about.is_(None), records.c.recorded_at.desc(), records.c.kind.desc())
    .limit(1)
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
    """
    The state that the log of a portfolio gives.

    Raises:
        LogUnavailableError: it cannot be read.
    """
    try:
        with engine.connect() as connection:
            last = connection.execute(_last, {"of_portfolio": portfolio}).first()
            changed = last is None and connection.execute(_any, {"of_portfolio": portfolio}).first() is not None
    except sa.exc.SQLAlchemyError as error:
        raise LogUnavailableError(f"the switch cannot be read: {type(error).__name__}") from error
    if changed:
        return SwitchState(stopped=True, reason="its events only follow each other: run `cde verify-log`")
    if last is None:
        return SwitchState()
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
