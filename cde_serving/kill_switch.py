"""The kill switch: whether decisions are taken automatically, as the decision log's last event about it says."""

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

_last = (
    sa.select(records.c.kind, records.c.recorded_at, records.c.decided_by, records.c.reason_codes)
    .where(
        sa.text("kind IN ('stop_auto', 'resume_auto')"),  # as in the index: SQLite compares the words
        records.c.portfolio == sa.bindparam("of_portfolio"),
    )
    .order_by(records.c.recorded_at.desc(), records.c.kind.desc())  # of two at one moment the stop counts
    .limit(1)
)


@dataclass(frozen=True)
class SwitchState:
    """Whether automatic decisions are stopped, and since when, by whom and why."""

    stopped: bool = False
    since: str | None = None
    by: str | None = None
    reason: str = ""


def read_switch(engine: Engine, portfolio: str) -> SwitchState:
    """The state that the log of a portfolio gives."""
    with engine.connect() as connection:
        last = connection.execute(_last, {"of_portfolio": portfolio}).first()
    if last is None:
        return SwitchState()
    reasons = msgspec.json.decode(last.reason_codes) if last.reason_codes else [""]
    return SwitchState(last.kind == "stop_auto", last.recorded_at, last.decided_by, reasons[0])


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
    await log.note(Event.of(kind, clock(), portfolio=portfolio, by=by, reason=reason))
