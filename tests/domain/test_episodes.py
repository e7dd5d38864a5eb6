"""Tests for `cde_domain.decisions.monitoring.episodes`: an event is an event however often it is reported."""

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cde_domain.decisions.monitoring.episodes import Sighting, Watch

KINDS = ("psi", "approval_rate", "adverse_impact")


FIRST = date(2026, 3, 2)


@st.composite
def sightings(draw: st.DrawFn) -> list[Sighting]:
    """Reports in the order in which they were made, none about an older day than the one before it."""
    found: list[Sighting] = []
    number, day = 0, FIRST
    for _ in range(draw(st.integers(0, 20))):
        number += draw(st.integers(1, 5))
        day += timedelta(days=draw(st.integers(0, 3)))
        judged = draw(st.booleans())
        kinds = tuple(draw(st.sets(st.sampled_from(KINDS)))) if judged else ()
        retrains = "psi" in kinds
        bundle = draw(st.sampled_from([None, "first"]))
        found.append(Sighting(number=number, day=day, bundle=bundle, judged=judged, kinds=kinds, retrains=retrains))
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
def test_people_are_told_once_of_each_alarm_until_a_report_without_any_or_a_week_without_it(reports: list[Sighting]):
    """No alarm is told twice in between, and none is left out."""
    watch = Watch()
    told: dict[str, date | None] = {}  # the day of the first report that lacks it
    for report in reports:
        assert report.day is not None
        watch = watch.after(report)
        if report.judged and not report.kinds:
            told.clear()
        elif report.judged:
            gone = {kind: None if kind in report.kinds else since or report.day for kind, since in told.items()}
            told = {kind: since for kind, since in gone.items() if since is None or (report.day - since).days < 7}
        assert set(report.kinds) - told.keys() == set(watch.news(report))
        watch = watch.having_told(report)
        told |= dict.fromkeys(report.kinds, None)


@settings(max_examples=40)
@given(sightings(), sightings())
def test_a_change_of_champion_begins_anew(earlier: list[Sighting], later: list[Sighting]):
    """What the champion before it was told of and trained for says nothing of the next one, judged or not."""
    watch = Watch(bundle="first", began=1, asked=1, told=("psi",))
    for report in earlier:
        watch = watch.after(report).having_told(report)
    fresh = Watch()
    for report in later:
        of_next = report.model_copy(
            update={"number": report.number + 1000, "day": FIRST + timedelta(days=1000), "bundle": "second"}
        )
        watch, fresh = watch.after(of_next), fresh.after(of_next)
        assert watch == fresh
        watch, fresh = watch.having_told(of_next), fresh.having_told(of_next)


@given(sightings(), st.integers(1, 500), st.sets(st.sampled_from(KINDS)), st.booleans())
def test_a_report_about_an_older_day_changes_nothing(reports: list[Sighting], days: int, kinds: set[str], judged: bool):
    """Made by hand: neither an old alarm nor an old calm counts, and later reports say what they would have said."""
    watch = Watch(seen=1, day=FIRST)
    for report in reports:
        new = report.model_copy(update={"number": report.number * 2})
        watch = watch.after(new).having_told(new)
        assert watch.day is not None
        old = Sighting(
            number=report.number * 2 + 1,
            day=watch.day - timedelta(days=days),
            bundle="long gone",
            judged=judged,
            kinds=tuple(kinds),
            retrains=True,
        )
        assert watch.after(old) == watch.model_copy(update={"seen": old.number})
        assert not watch.after(old).news(old)
        watch = watch.after(old)


def test_a_clock_that_was_ahead_leaves_no_report_unheard_once_it_is_set_back():
    """Its reports are remembered as of the last day that is over by the clock that is right."""
    ahead = Sighting(number=1, day=FIRST + timedelta(days=400))
    alarm = Sighting(number=2, day=FIRST, kinds=("psi",), retrains=True)

    for watch in (Watch().after(ahead), Watch().after(ahead, ahead.day)):
        assert not watch.after(alarm).is_due
        assert watch.after(alarm, FIRST).is_due


@pytest.mark.parametrize("began", [None, 3])
def test_what_earlier_versions_remembered_is_read_and_goes_on(began: int | None):
    """They kept neither day nor champion."""
    old = Watch.model_validate({"seen": 5, "began": began, "asked": 1 if began else 0, "told": ["psi"]})

    watch = old.after(Sighting(number=6, day=FIRST, bundle="first", kinds=("psi",), retrains=True))

    assert watch.is_due is (began is None)
    assert watch.told == ("psi",)


def test_an_alarm_that_training_does_not_mend_asks_for_none():
    """An approval rate out of its bounds is for people."""
    watch = Watch().after(Sighting(number=1, kinds=("approval_rate",), retrains=False))

    assert not watch.is_due
    assert watch.news(Sighting(number=1, kinds=("approval_rate",)))
