"""One decision of one bundle, whatever happens inside it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date

import structlog
from pydantic import BaseModel

from cde_domain.decisions.engine import Decision, Routing
from cde_domain.decisions.review import failed, reviewed
from cde_domain.release import Bundle
from cde_serving.intake import Intake
from cde_serving.logs import places

QUIET_TURNS = 2
LARGEST_BURST = 32  # so that the event loop is not held for more than some milliseconds

log = structlog.get_logger()


def decide_all(bundle: Bundle, intakes: Sequence[Intake], applied_on: date, *, stopped: bool = False) -> list[Decision]:
    """The decision on each application, in one pass of the engine, and as `decide` would take it alone."""
    try:
        decisions = bundle.engine.decide_all([intake.application for intake in intakes], applied_on)
    except Exception:  # whichever of them it was: the others are decided all the same
        return [
            decide(bundle, intake.application, applied_on, fault=intake.fault, stopped=stopped) for intake in intakes
        ]
    return [
        reviewed(decision, fault=intake.fault, stopped=stopped)
        for intake, decision in zip(intakes, decisions, strict=True)
    ]


def decide(
    bundle: Bundle, application: BaseModel, applied_on: date, *, fault: Routing | None = None, stopped: bool = False
) -> Decision:
    """The decision on an application; an exception in features, model or policy sends it to a person."""
    try:
        decision = bundle.engine.decide(application, applied_on)
    except Exception as error:  # a bug or an overflow in the portfolio's code is no reason to turn anybody away
        log.error("decision failed", error=type(error).__name__, bundle=bundle.digest, at=places(error.__traceback__))
        return failed(bundle.engine)
    return reviewed(decision, fault=fault, stopped=stopped)


@dataclass(slots=True)
class _Burst:
    """Applications that came together, for one bundle and date."""

    bundle: Bundle
    applied_on: date
    intakes: list[Intake] = field(default_factory=list)
    decisions: list[asyncio.Future[Decision]] = field(default_factory=list)


class Decider:
    """
    Decides what comes in a burst in one pass of the engine.

    A burst is over when some turns of the event loop, each microseconds long, brought no more. What the engine does
    for one application costs nearly what it does for eight, and their records then share a commit.
    """

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        self._bursts: dict[tuple[str, date], _Burst] = {}

    async def decide(self, bundle: Bundle, intake: Intake, applied_on: date) -> Decision:
        """The decision on an application, to the same bits as if it came alone."""
        loop = asyncio.get_running_loop()
        burst = self._bursts.get((bundle.digest, applied_on))
        if burst is None or len(burst.intakes) == LARGEST_BURST:
            burst = self._bursts[bundle.digest, applied_on] = _Burst(bundle, applied_on)
            loop.call_soon(self._await_end, burst, 0, QUIET_TURNS)
        decision: asyncio.Future[Decision] = loop.create_future()
        burst.intakes.append(intake)
        burst.decisions.append(decision)
        return await decision

    def _await_end(self, burst: _Burst, seen: int, quiet_turns: int) -> None:
        come = len(burst.intakes)
        left = quiet_turns - 1 if come == seen else QUIET_TURNS
        if left and come < LARGEST_BURST:
            asyncio.get_running_loop().call_soon(self._await_end, burst, come, left)
        else:
            self._end(burst)

    def _end(self, burst: _Burst) -> None:
        key = burst.bundle.digest, burst.applied_on
        if self._bursts.get(key) is burst:  # and not one that follows a full one
            del self._bursts[key]
        decisions = decide_all(burst.bundle, burst.intakes, burst.applied_on, stopped=self._stopped())
        for waiting, decision in zip(burst.decisions, decisions, strict=True):
            if not waiting.done():  # the client has gone
                waiting.set_result(decision)
