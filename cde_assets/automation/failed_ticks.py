"""The sensor that tells people of sensors and schedules that fail themselves, and so would fall silent."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, TickStatus
from pydantic import TypeAdapter

from cde_assets.automation.links import automation_link
from cde_assets.automation.watcher import Watcher
from cde_domain.clock import utc_now
from cde_resources.alerts.alert import Alert

SENSOR_LOOKS_AGAIN = "Nothing but to look again: its cursor stays where it was, so that nothing is passed over."
SCHEDULE_COMES_AGAIN = (
    "Nothing but to evaluate it again each minute, up to twelve hours (max_tick_retries in dagster.yaml). If all that "
    "fails, this time is passed over: daily_monitoring catches the days up at its next, the job of any other schedule "
    "has to be started by a person."
)
LOOKED_BACK = timedelta(minutes=10)  # by the machine's clock, which stamps ticks

_SEEN = TypeAdapter(dict[str, int])  # the cursor: the last failed tick that was told or counted, by sensor or schedule


def failed_ticks_alert(watcher: Watcher) -> dg.SensorDefinition:
    """The sensor of this name."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen = _SEEN.validate_json(context.cursor or "{}")
        told = 0
        for state, tick in failed_ticks(context):
            if seen.get(state.selector_id) != tick.tick_id:
                told += watcher.alerter.send(tick_alert(watcher, state, tick))
                seen[state.selector_id] = tick.tick_id
        said = " ".join([f"{told} failed ticks told.", *watcher.alerter.retry()])
        return dg.SensorResult(skip_reason=said, cursor=_SEEN.dump_json(seen).decode())

    return watcher.sensor(
        "failed_ticks_alert",
        evaluate,
        description="Tells people of sensors and schedules whose evaluation failed: what they watch is unwatched.",
    )


def failed_ticks(context: dg.SensorEvaluationContext) -> Iterator[tuple[InstigatorState, InstigatorTick]]:
    """The newest failed tick of the last minutes of each sensor and schedule of this code location."""
    after = (utc_now() - LOOKED_BACK).timestamp()
    for state in own_states(context):
        ticks = context.instance.get_ticks(
            state.instigator_origin_id, state.selector_id, after=after, limit=1, statuses=[TickStatus.FAILURE]
        )
        yield from ((state, tick) for tick in ticks)


def own_states(context: dg.SensorEvaluationContext) -> list[InstigatorState]:
    """What Dagster knows of the sensors and schedules of this code location; of all, where it does not say which."""
    own = context.code_location_origin
    return [
        state
        for state in context.instance.all_instigator_state()
        if own is None or state.origin.repository_origin.code_location_origin == own
    ]


def tick_alert(watcher: Watcher, state: InstigatorState, tick: InstigatorTick) -> Alert:
    """What is told of a failed tick: the kind of error, not its words, which may be of anybody."""
    kind = state.instigator_type.value.lower()
    error = tick.error.cls_name if tick.error and tick.error.cls_name else "an error"
    return Alert(
        key=f"tick_failed:{state.instigator_name}:{error}",
        title=f"The {kind} {state.instigator_name} fails",
        what=f"Its evaluation ended with {error}; the tick shows where. Until it succeeds nobody watches for it.",
        where=automation_link(watcher.settings),
        did=SCHEDULE_COMES_AGAIN if state.instigator_type is InstigatorType.SCHEDULE else SENSOR_LOOKS_AGAIN,
        severity="critical",
    )
