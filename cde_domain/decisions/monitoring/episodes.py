"""Episodes of alarm: which reports belong together, and what was done about them."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Self

from pydantic import BaseModel, ConfigDict

FORGOTTEN_AFTER = timedelta(days=7)  # an alarm that flickers is one alarm, one that comes back after a week another


class Sighting(BaseModel):
    """
    What one report says; a later report has a larger `number`.

    `day` is the last day that it looks at, `bundle` the champion that it judges; None where it does not say. A report
    on too few decisions is not `judged`. `kinds` are the names of its alarms, and `retrains` says whether one of them
    is of a kind that training can mend.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    day: date | None = None
    bundle: str | None = None
    judged: bool = True
    kinds: tuple[str, ...] = ()
    retrains: bool = False


class Watch(BaseModel):
    """
    What is remembered of a row of reports about one champion.

    An episode begins with the first report that asks for training (`began`; `stands` is the last that did) and ends
    with the first that was judged and does not, or with the champion. `asked` counts the trainings that were asked for
    in it, `told` holds the alarms that people were told of since the last report without any, and `gone` from which day
    on reports lack one of them. An episode that goes on is one event however many reports repeat it.

    `seen` is the last report that was read, `heard` the last that was not about an older `day` than one before it.
    """

    model_config = ConfigDict(frozen=True)

    seen: int = 0
    heard: int = 0
    day: date | None = None
    bundle: str | None = None
    began: int | None = None
    stands: int | None = None
    asked: int = 0
    told: tuple[str, ...] = ()
    gone: Mapping[str, date] = {}

    def after(self, report: Sighting, last_day: date | None = None) -> Self:
        """
        The memory after a report; one that was seen before, or that looks back, changes nothing.

        `last_day` is the last day that is over: no report is remembered as one about a later day, so that a clock that
        was ahead for a while does not make reports unheard until it has caught up.
        """
        if report.number <= self.seen:
            return self
        known = self._until(last_day)
        day = _earlier(report.day, last_day)
        if day is not None and known.day is not None and day < known.day:
            return known._with(seen=report.number)
        if known.is_of_another(report):
            known = type(self)()
        marks = {
            "seen": report.number,
            "heard": report.number,
            "day": day or known.day,
            "bundle": report.bundle or known.bundle,
        }
        if not report.judged:
            return known._with(**marks)
        if not report.kinds:
            return type(self)()._with(**marks)
        known = known._with(**marks)._without_forgotten(report, day)
        if not report.retrains:
            return known._with(began=None, stands=None, asked=0)
        return known._with(began=known.began or report.number, stands=report.number)

    def is_of_another(self, report: Sighting) -> bool:
        """Whether a report judges another champion than the one that is remembered."""
        return None not in (self.bundle, report.bundle) and self.bundle != report.bundle

    def news(self, report: Sighting) -> tuple[str, ...]:
        """The alarms of the report that was heard last that people were not told of."""
        return tuple(kind for kind in report.kinds if kind not in self.told) if report.number == self.heard else ()

    def having_told(self, report: Sighting) -> Self:
        """The memory after people were told of a report's alarms."""
        return self._with(told=(*self.told, *self.news(report)))

    @property
    def is_due(self) -> bool:
        """Whether an episode goes on in which nothing was asked for."""
        return self.began is not None and not self.asked

    def having_asked(self) -> Self:
        """The memory after a training was asked for."""
        return self._with(asked=self.asked + 1)

    def _until(self, last_day: date | None) -> Self:
        gone = {kind: min(day, last_day or day) for kind, day in self.gone.items()}
        return self._with(day=_earlier(self.day, last_day), gone=gone)

    def _without_forgotten(self, report: Sighting, day: date | None) -> Self:
        if day is None:
            return self
        gone = {kind: self.gone.get(kind, day) for kind in self.told if kind not in report.kinds}
        gone = {kind: since for kind, since in gone.items() if day - since < FORGOTTEN_AFTER}
        told = tuple(kind for kind in self.told if kind in gone or kind in report.kinds)
        return self._with(told=told, gone=gone)

    def _with(self, **changes: object) -> Self:
        return self.model_copy(update=changes)


def _earlier(day: date | None, last_day: date | None) -> date | None:
    return min(day, last_day) if day is not None and last_day is not None else day
