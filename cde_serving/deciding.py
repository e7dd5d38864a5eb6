"""Decisions of a bundle, whatever happens inside it: one, many, or those that come together."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date

import structlog

from cde_domain.decisions.engine import Decision
from cde_domain.decisions.review import failed, reviewed
from cde_domain.release import Bundle
from cde_serving.intake import Intake
from cde_serving.logs import places

QUIET_TURNS = 2
LARGEST_BURST = 32  # so that the event loop is not held for more than some milliseconds

log = structlog.get_logger()


def decide_all(bundle: Bundle, intakes: Sequence[Intake], applied_on: date, *, stopped: bool = False) -> list[Decision]:
    """The decision on each application, in one pass of the engine, and as `decide` would take it alone."""
    together = _decide_together(bundle, intakes, applied_on, stopped=stopped)
    return together or [decide(bundle, intake, applied_on, stopped=stopped) for intake in intakes]


def _decide_together(
    bundle: Bundle, intakes: Sequence[Intake], applied_on: date, *, stopped: bool
) -> list[Decision] | None:
    """The decision on each application; None if any fails, whichever of them it is."""
    try:
        decisions = bundle.engine.decide_all([intake.application for intake in intakes], applied_on)
        return [
            reviewed(decision, fault=intake.fault, stopped=stopped)
            for intake, decision in zip(intakes, decisions, strict=True)
        ]
    except Exception:  # told where each is decided alone
        return None


def decide(bundle: Bundle, intake: Intake, applied_on: date, *, stopped: bool = False) -> Decision:
    """The decision on an application; an exception in features, model or policy sends it to a person."""
    try:
        decision = bundle.engine.decide(intake.application, applied_on)
    except Exception as error:  # a bug or an overflow in the portfolio's code is no reason to turn anybody away
        log.error("decision failed", error=type(error).__name__, bundle=bundle.digest, at=places(error.__traceback__))
        return failed(bundle.engine)
    return reviewed(decision, fault=intake.fault, stopped=stopped)


@dataclass(slots=True)
class _Burst:
    """Applications that came together, for one bundle and date."""

    bundle: Bundle
    applied_on: date
    intakes: list[Intake] = field(default_factory=list)
    decisions: list[asyncio.Future[Decision | None]] = field(default_factory=list)


class Decider:
    """
    Decides what comes in a burst in one pass of the engine.

    A burst is over when some turns of the event loop brought no more. What the engine does for one application costs
    nearly what it does for eight, and their records then share a commit.
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
        waiting: asyncio.Future[Decision | None] = loop.create_future()
        burst.intakes.append(intake)
        burst.decisions.append(waiting)
        # Where one of a burst fails, each is decided in its own request, whose id a line of the log then bears.
        return await waiting or decide(bundle, intake, applied_on, stopped=self._stopped())

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
        together = _decide_together(burst.bundle, burst.intakes, burst.applied_on, stopped=self._stopped())
        for place, waiting in enumerate(burst.decisions):
            if not waiting.done():  # the client has gone
                waiting.set_result(together[place] if together else None)
