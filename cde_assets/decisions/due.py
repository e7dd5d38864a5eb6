"""Which days have to be read from the log: asked of the log and the files, never of a clock that was right."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

from sqlalchemy.engine import Engine

from cde_assets.decisions.day_files import LABELS, OUTCOME_RECORDS, RECORDS, notes_of
from cde_assets.decisions.known_labels import Labels
from cde_checks.decisions import DAYS
from cde_domain.decisions.monitoring.recorded import days, decisions_file, outcomes_file
from cde_serving.records.periods import count_outcomes, count_records, first_day

LOOKED_AT_AGAIN = 35  # days in which a decision may still turn up: from a clock that was set back, a commit at midnight
EARLIEST = DAYS.start.date()


def days_to_record(engine: Engine, home: Path, portfolio: str, today: date) -> list[date]:
    """
    The days that are over and not recorded whole, oldest first.

    A day is recorded once its two files are there. Of the last days it is asked again whether they can be read, and
    whether the log has more than when it was: a day that was read too early, by a clock that was ahead, comes again
    when it is over. A log may be older than the first day that is recorded, see `left_out`.
    """
    over = _over(engine, portfolio, today)
    again = {day for day in over if day >= today - timedelta(days=LOOKED_AT_AGAIN)}
    due = {day for day in over if not (decisions_file(home, day).is_file() and outcomes_file(home, day).is_file())}
    looked_at = sorted(again - due)
    counts = count_records(engine, looked_at)
    due |= {
        day
        for day, count in zip(looked_at, counts, strict=True)
        if notes_of(decisions_file(home, day)).get(RECORDS) != str(count)
        or OUTCOME_RECORDS not in notes_of(outcomes_file(home, day))
    }
    return sorted(due)


def days_to_follow(
    engine: Engine, home: Path, portfolio: str, labels: Labels, today: date, matures_after_days: int | None
) -> Mapping[date, str]:
    """
    The recorded, mature days about whose loans more is known than when they were read, and what is known by now.

    The values are of no use but to be compared: the same day is asked for twice only if they differ.
    """
    over = _over(engine, portfolio, today - timedelta(days=matures_after_days or 0))
    mature = [day for day in over if outcomes_file(home, day).is_file()]
    changed = {}
    for day, count in zip(mature, count_outcomes(engine, mature), strict=True):
        noted, known = notes_of(outcomes_file(home, day)), (str(count), labels.digest(day))
        if (noted.get(OUTCOME_RECORDS), noted.get(LABELS)) != known:
            changed[day] = " ".join(known)
    return changed


def left_out(engine: Engine, portfolio: str) -> str:
    """Which decisions of the log are recorded on no day, in words; "" for none."""
    first = first_day(engine, portfolio)
    return "" if first is None or first >= EARLIEST else f"; decisions before {EARLIEST} stand in the log alone"


def _over(engine: Engine, portfolio: str, today: date) -> list[date]:
    first = first_day(engine, portfolio)
    return [] if first is None else days(max(first, EARLIEST), today - timedelta(days=1))
