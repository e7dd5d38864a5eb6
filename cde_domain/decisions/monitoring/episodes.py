"""Episodes of alarm: which reports belong together, and what was done about them."""

from typing import Self

from pydantic import BaseModel, ConfigDict


class Sighting(BaseModel):
    """
    What one report says; a later report has a larger `number`.

    A report on too few decisions is not `judged`. `kinds` are the names of its alarms, and `retrains` says whether one
    of them is of a kind that training can mend.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    judged: bool = True
    kinds: tuple[str, ...] = ()
    retrains: bool = False


class Watch(BaseModel):
    """
    What is remembered of a row of reports.

    An episode begins with the first report that asks for training and ends with the first that was judged and does not.
    `asked` counts the trainings that were asked for in it, `told` holds the alarms that people were told of since the
    last report without any. An episode that goes on is one event however many reports repeat it.
    """

    model_config = ConfigDict(frozen=True)

    seen: int = 0
    began: int | None = None
    asked: int = 0
    told: tuple[str, ...] = ()

    def after(self, report: Sighting) -> Self:
        """The memory after a report; one that was seen before changes nothing."""
        if report.number <= self.seen:
            return self
        if not report.judged:
            return self._with(seen=report.number)
        if not report.kinds:
            return type(self)(seen=report.number)
        if not report.retrains:
            return self._with(seen=report.number, began=None, asked=0)
        return self._with(seen=report.number, began=self.began or report.number)

    def news(self, report: Sighting) -> tuple[str, ...]:
        """The alarms of a report that people were not told of."""
        return tuple(kind for kind in report.kinds if kind not in self.told)

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

    def _with(self, **changes: object) -> Self:
        return self.model_copy(update=changes)
