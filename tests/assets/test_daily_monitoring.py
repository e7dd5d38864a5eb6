"""What asks for monitoring: every day that is over once, whatever clocks, runs and services do."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from cde_assets.decisions.monitoring import (
    MONITOR_JOB,
    Watch,
    daily_monitoring_by_clock,
    matured_outcomes,
)
from cde_checks.decisions import FIRST, LAST
from cde_serving.decision_log import LogUnavailableError
from tests.assets.branch import NAME, Branch, why
from tests.support import TinyLoans

START = "2026-03-02T09:00"


@pytest.fixture
def branch(watched_loans: tuple[TinyLoans, Path], tmp_path: Path) -> Iterator[Branch]:
    with Branch(tmp_path, *watched_loans, START) as branch:
        yield branch


def asked(branch: Branch) -> dg.RunRequest | str:
    """The run that the schedule asks for, or why it asks for none."""
    evaluate = daily_monitoring_by_clock(Watch.of(branch.settings, branch.portfolio))
    answer = evaluate(dg.build_sensor_context(instance=branch.instance))
    if isinstance(answer, dg.SkipReason):
        return str(answer.skip_message)
    (request,) = answer.run_requests or ()
    return request


def days(request: dg.RunRequest | str) -> tuple[str, str]:
    assert isinstance(request, dg.RunRequest), request
    return request.tags[FIRST], request.tags[LAST]


def done(branch: Branch) -> None:
    """Ask and do it."""
    assert branch.monitor(*days(asked(branch))).success


def a_run(branch: Branch, status: dg.DagsterRunStatus, **more: str) -> None:
    """A run of the job over some days that stands like this."""
    tags = {FIRST: "2026-03-02", LAST: "2026-03-04", "portfolio": NAME, **more}
    branch.instance.create_run_for_job(branch.definitions.resolve_job_def(MONITOR_JOB), status=status, tags=tags)


class Sensor:
    """The sensor of late outcomes with its cursor, as the daemon keeps it."""

    def __init__(self, branch: Branch) -> None:
        self.cursor: str | None = None
        self._branch = branch
        self._evaluate = matured_outcomes(Watch.of(branch.settings, branch.portfolio))

    def look(self) -> dg.RunRequest | str:
        context = dg.build_sensor_context(instance=self._branch.instance, cursor=self.cursor)
        answer = self._evaluate(context)
        if isinstance(answer, dg.SkipReason):
            return str(answer.skip_message)
        self.cursor = answer.cursor
        (request,) = answer.run_requests or ()
        return request


def test_nothing_is_asked_for_before_the_first_decision(branch: Branch):
    branch.set_clock("2026-03-05T00:20")

    assert "every day until 2026-03-04 is recorded" in str(asked(branch))


def test_a_day_is_asked_for_when_it_is_over(branch: Branch):
    branch.score("c-1")
    assert "is recorded and reported on" in str(asked(branch))

    branch.set_clock("2026-03-03T00:20")

    assert ("2026-03-02", "2026-03-02") == days(asked(branch))


def test_the_schedule_asks_for_it_every_night(branch: Branch):
    branch.score("c-1")
    branch.set_clock("2026-03-03T00:20")
    schedule = branch.definitions.resolve_schedule_def("daily_monitoring")

    with dg.DagsterInstance.local_temp() as instance:
        (request,) = schedule.evaluate_tick(dg.build_schedule_context(instance=instance)).run_requests or ()

    assert ("2026-03-02", "2026-03-02") == days(request)
    assert "20 0 * * *" == schedule.cron_schedule


def test_missed_days_are_caught_up_in_one_run_and_no_day_twice(branch: Branch):
    branch.score("c-1")
    branch.set_clock("2026-03-09T00:20")

    request = asked(branch)

    assert ("2026-03-02", "2026-03-08") == days(request)
    assert branch.monitor(*days(request)).success
    assert "every day until 2026-03-08 is recorded" in str(asked(branch))
    branch.set_clock("2026-03-10T00:20")
    assert ("2026-03-09", "2026-03-09") == days(asked(branch))


def test_a_tick_that_is_evaluated_twice_asks_under_one_key(branch: Branch):
    """The daemon is killed after it asked and before it noted so: by its key the run is known."""
    branch.score("c-1")
    branch.set_clock("2026-03-03T00:20")

    first, again = asked(branch), asked(branch)

    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert first.run_key == again.run_key


def test_nothing_is_asked_for_while_a_run_is_at_it(branch: Branch):
    branch.score("c-1")
    branch.set_clock("2026-03-03T00:20")
    a_run(branch, dg.DagsterRunStatus.STARTED)

    assert "is at it" in str(asked(branch))


def test_a_clock_that_was_set_back_asks_for_nothing_twice(branch: Branch):
    branch.score("c-1")
    branch.set_clock("2026-03-09T00:20")
    done(branch)

    branch.set_clock("2026-03-04T00:20")

    assert "every day until 2026-03-03 is recorded" in str(asked(branch))


def test_a_day_that_was_read_too_early_by_a_clock_that_was_ahead_comes_again(branch: Branch):
    branch.score("c-1")
    branch.set_clock("2026-03-20T00:20")
    done(branch)
    branch.set_clock("2026-03-04T12:00")
    late = branch.score("c-2")["decision_id"]

    branch.set_clock("2026-03-05T00:20")

    assert ("2026-03-04", "2026-03-04") == days(asked(branch))
    done(branch)
    assert [late] == branch.decisions("2026-03-04")["decision_id"].tolist()
    assert "is recorded and reported on" in str(asked(branch))


def test_what_failed_is_asked_for_again_under_another_key(branch: Branch):
    decision = branch.score("c-1")["decision_id"]
    branch.set_clock("2026-03-03T00:20")
    damaged = branch.labels("labels.csv", (decision, "perhaps", "2026-03-02"))
    first = asked(branch)
    assert not branch.monitor(*days(first)).success

    again = asked(branch)

    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert (days(first), first.run_key) != (days(again), again.run_key)
    damaged.unlink()
    done(branch)
    assert "is recorded and reported on" in str(asked(branch))


def test_a_lost_run_that_dagster_starts_once_more_is_not_asked_for_beside_it(branch: Branch):
    branch.score("c-1")
    branch.set_clock("2026-03-05T00:20")
    a_run(branch, dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "true"})

    assert "about to be started once more" in str(asked(branch))

    a_run(branch, dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "false"})
    assert ("2026-03-02", "2026-03-04") == days(asked(branch))


def test_reports_that_failed_after_the_days_were_recorded_are_asked_for_again(branch: Branch):
    branch.score("c-1")
    branch.set_clock("2026-03-05T00:20")
    done(branch)
    a_run(branch, dg.DagsterRunStatus.FAILURE)

    assert ("2026-03-04", "2026-03-04") == days(asked(branch))


def test_before_the_first_decision_there_is_nothing_to_watch(branch: Branch):
    (branch.folder / "decisions.sqlite").rename(branch.folder / "elsewhere.sqlite")

    assert "there is no decision log" in str(asked(branch))


def test_a_log_that_is_away_fails_the_tick_so_that_people_are_told_and_skips_nothing(branch: Branch):
    branch.score("c-1")
    branch.set_clock("2026-03-03T00:20")
    done(branch)
    branch.score("c-2")
    branch.set_clock("2026-03-04T00:20")
    database = branch.folder / "decisions.sqlite"
    elsewhere = database.rename(branch.folder / "elsewhere.sqlite")

    with pytest.raises(LogUnavailableError, match="there is no decision log"):
        asked(branch)

    elsewhere.rename(database)
    assert ("2026-03-03", "2026-03-03") == days(asked(branch))


def recorded(branch: Branch) -> str:
    """A loan of 2 March that is recorded and mature by 10 March; its decision."""
    decision = str(branch.score("c-1", annual_income=120_000.0, loan_amount=9_000.0)["decision_id"])
    branch.set_clock("2026-03-10T00:20")
    done(branch)
    return decision


def test_an_outcome_of_a_mature_day_leads_to_one_run_of_that_day(branch: Branch):
    decision, sensor = recorded(branch), Sensor(branch)
    assert "nothing more is known" in str(sensor.look())
    branch.set_clock("2026-03-11T09:00")
    branch.tell(decision, "repaid", "2026-03-10")

    request = sensor.look()

    assert ("2026-03-02", "2026-03-02") == days(request)
    assert "was asked for today" in str(sensor.look())
    assert branch.follow(*days(request)).success
    assert "nothing more is known" in str(sensor.look())
    assert ["repaid"] == [row["outcome"] for row in branch.outcomes("2026-03-02")]


def test_an_outcome_of_a_young_day_waits_until_the_day_is_mature(branch: Branch):
    decision, sensor = recorded(branch), Sensor(branch)
    branch.set_clock("2026-03-05T09:00")
    branch.tell(decision, "defaulted", "2026-03-04")
    assert "nothing more is known" in str(sensor.look())

    branch.set_clock("2026-03-07T00:05")  # five days after

    assert "nothing more is known" in str(sensor.look())
    branch.set_clock("2026-03-08T00:05")
    assert ("2026-03-02", "2026-03-02") == days(sensor.look())


def test_a_correction_and_a_labels_file_are_news_too_but_not_every_minute(branch: Branch):
    decision, sensor = recorded(branch), Sensor(branch)
    branch.set_clock("2026-03-11T09:00")
    branch.tell(decision, "repaid", "2026-03-10")
    assert branch.follow(*days(sensor.look())).success
    branch.set_clock("2026-03-11T09:30")
    branch.tell(decision, "defaulted", "2026-03-11")
    assert "wait for 1:00:00" in str(sensor.look())

    branch.set_clock("2026-03-11T10:01")

    assert branch.follow(*days(sensor.look())).success
    branch.labels("march.csv", (decision, "repaid", "2026-03-11"))
    branch.set_clock("2026-03-11T12:00")
    assert branch.follow(*days(sensor.look())).success
    branch.set_clock("2026-03-11T14:00")
    assert "nothing more is known" in str(sensor.look())


def test_a_clock_that_was_set_back_does_not_keep_outcomes_waiting(branch: Branch):
    decision, sensor = recorded(branch), Sensor(branch)
    branch.set_clock("2026-03-20T09:00")
    branch.tell(decision, "repaid", "2026-03-10")
    assert branch.follow(*days(sensor.look())).success

    branch.set_clock("2026-03-12T09:00")
    branch.tell(decision, "defaulted", "2026-03-11")

    assert ("2026-03-02", "2026-03-02") == days(sensor.look())


def test_a_review_is_no_outcome(branch: Branch):
    decision, sensor = recorded(branch), Sensor(branch)
    path = f"/api/v1/credit/decisions/{decision}/review"
    body = {"reviewer": "Jane Doe", "verdict": "APPROVED", "reason": "Papers were checked"}
    assert 201 == branch.client.post(path, json=body).status_code

    assert "nothing more is known" in str(sensor.look())


def test_a_damaged_labels_file_leads_to_one_run_which_fails_and_to_another_when_it_is_mended(branch: Branch):
    decision, sensor = recorded(branch), Sensor(branch)
    path = branch.labels("march.csv", (decision, "perhaps", "2026-03-09"))

    request = sensor.look()

    assert not branch.follow(*days(request)).success
    assert "was asked for today" in str(sensor.look())
    path.unlink()
    branch.labels("march.csv", (decision, "repaid", "2026-03-09"))
    branch.set_clock("2026-03-10T02:00")
    assert branch.follow(*days(sensor.look())).success
    assert ["repaid"] == [row["outcome"] for row in branch.outcomes("2026-03-02")]


def test_a_labels_file_that_leads_nowhere_fails_the_run_and_not_the_sensor(branch: Branch):
    """A link to a share that is not mounted; a file that was taken away in this very moment looks the same."""
    recorded(branch)
    link = branch.folder / "labels" / "march.csv"
    link.parent.mkdir()
    link.symlink_to(branch.folder / "nowhere.csv")

    result = branch.follow(*days(Sensor(branch).look()))

    assert "the labels file march.csv cannot be used" in why(result)
    link.unlink()
    assert "nothing more is known" in str(Sensor(branch).look())


def test_a_damaged_file_of_a_recorded_day_is_named_by_reports_and_written_again_the_next_night(branch: Branch):
    """As after a disk that lost its end; of outcomes as of decisions."""
    recorded(branch)
    for kind in ("recorded", "outcomes"):
        file = branch.folder / "decisions" / kind / "2026-03-08.parquet"
        file.write_bytes(file.read_bytes()[:100])
        if kind == "recorded":
            assert f"{kind}/2026-03-08.parquet of a recorded day is damaged" in why(branch.report("drift_report"))
        assert ("2026-03-08", "2026-03-08") == days(asked(branch))
        done(branch)


def test_decisions_before_the_first_day_that_is_recorded_are_said_to_be_left_out(
    watched_loans: tuple[TinyLoans, Path], tmp_path: Path
):
    with Branch(tmp_path, *watched_loans, "2024-12-31T09:00") as branch:
        branch.score("c-1")
        branch.set_clock("2025-01-02T00:20")
        done(branch)

        assert "decisions before 2025-01-01 stand in the log alone" in str(asked(branch))


def test_a_log_that_is_away_leaves_the_cursor_where_it_is(branch: Branch):
    decision, sensor = recorded(branch), Sensor(branch)
    branch.tell(decision, "repaid", "2026-03-09")
    elsewhere = (branch.folder / "decisions.sqlite").rename(branch.folder / "elsewhere.sqlite")

    with pytest.raises(LogUnavailableError, match="there is no decision log"):
        sensor.look()

    assert sensor.cursor is None
    elsewhere.rename(branch.folder / "decisions.sqlite")
    assert ("2026-03-02", "2026-03-02") == days(sensor.look())


def test_where_a_file_tells_the_time_a_sensor_takes_the_place_of_the_schedule(branch: Branch):
    """Cron goes by the machine's clock, which such days do not wait for."""
    branch.score("c-1")
    branch.set_clock("2026-03-05T00:20")
    by_clock = branch.definitions.resolve_sensor_def("daily_monitoring_by_clock")
    schedule = branch.definitions.resolve_schedule_def("daily_monitoring")
    context = dg.build_sensor_context(instance=branch.instance, definitions=branch.definitions)

    passing = by_clock.evaluate_tick(context)
    clock_file = branch.settings.clock_file
    assert clock_file is not None
    os.utime(clock_file, (0, 0))  # it has stood still since
    (request,) = by_clock.evaluate_tick(context).run_requests or ()

    assert "days are passing" == passing.skip_message
    assert ("2026-03-02", "2026-03-04") == days(request)
    assert dg.DefaultSensorStatus.RUNNING == by_clock.default_status
    assert dg.DefaultScheduleStatus.STOPPED == schedule.default_status


def test_by_that_sensor_too_what_failed_is_asked_for_once_a_day(branch: Branch):
    decision = branch.score("c-1")["decision_id"]
    branch.set_clock("2026-03-03T00:20")
    branch.labels("labels.csv", (decision, "perhaps", "2026-03-02"))
    evaluate = daily_monitoring_by_clock(Watch.of(branch.settings, branch.portfolio))
    first = evaluate(dg.build_sensor_context(instance=branch.instance))
    assert isinstance(first, dg.SensorResult)
    assert not branch.monitor(*days((first.run_requests or [])[0])).success

    again = evaluate(dg.build_sensor_context(instance=branch.instance, cursor=first.cursor))

    assert isinstance(again, dg.SkipReason)
    branch.set_clock("2026-03-04T00:20")
    assert isinstance(evaluate(dg.build_sensor_context(instance=branch.instance, cursor=first.cursor)), dg.SensorResult)
