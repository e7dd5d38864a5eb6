"""Tests for `cde_domain.decisions.monitoring.episodes`: an event is an event however often it is reported."""

from hypothesis import given
from hypothesis import strategies as st

from cde_domain.decisions.monitoring.episodes import Sighting, Watch

KINDS = ("psi", "approval_rate", "adverse_impact")


@st.composite
def sightings(draw: st.DrawFn) -> list[Sighting]:
    """Reports in the order in which they were made."""
    found: list[Sighting] = []
    number = 0
    for _ in range(draw(st.integers(0, 20))):
        number += draw(st.integers(1, 5))
        judged = draw(st.booleans())
        kinds = tuple(draw(st.sets(st.sampled_from(KINDS)))) if judged else ()
        retrains = "psi" in kinds
        found.append(Sighting(number=number, judged=judged, kinds=kinds, retrains=retrains))
    return found


def trainings(reports: list[Sighting]) -> list[int | None]:
    """The reports that began the episodes for which a sensor that may always train asks for one."""
    watch, asked = Watch(), []
    for report in reports:
        watch = watch.after(report)
        if watch.is_due:
            asked.append(watch.began)
            watch = watch.having_asked()
    return asked


@given(sightings())
def test_every_episode_asks_for_one_training(reports: list[Sighting]):
    """An episode is a run of judged reports that ask for training; reports on too few decisions are passed over."""
    judged = [report for report in reports if report.judged]
    begins = [
        report.number
        for before, report in zip([Sighting(number=0), *judged], judged, strict=False)
        if report.retrains and not before.retrains
    ]

    assert begins == trainings(reports)


@given(sightings(), st.lists(st.integers(0, 19)))
def test_a_report_that_is_read_again_changes_nothing(reports: list[Sighting], again: list[int]):
    """As after a tick that was cut short."""
    watch = Watch()
    for position, report in enumerate(reports):
        watch = watch.after(report)
        for place in again:
            if place <= position:
                assert watch == watch.after(reports[place])


@given(sightings())
def test_people_are_told_once_of_each_alarm_until_a_report_without_any(reports: list[Sighting]):
    """No alarm is told twice in between, and none is left out."""
    watch = Watch()
    told: set[str] = set()
    for report in reports:
        watch = watch.after(report)
        if report.judged and not report.kinds:
            told.clear()
        assert set(report.kinds) - told == set(watch.news(report))
        watch = watch.having_told(report)
        told |= set(report.kinds)


def test_an_alarm_that_training_does_not_mend_asks_for_none():
    """An approval rate out of its bounds is for people."""
    watch = Watch().after(Sighting(number=1, kinds=("approval_rate",), retrains=False))

    assert not watch.is_due
    assert watch.news(Sighting(number=1, kinds=("approval_rate",)))
