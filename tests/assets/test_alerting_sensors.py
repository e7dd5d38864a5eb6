"""Tests for `cde_assets.automation.alerting`: failed runs and failed checks reach people, without anybody's data."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_shared.error import SerializableErrorInfo

from cde_assets.automation.alerting import failed_checks_alert, failures_alert
from cde_assets.automation.failed_ticks import failed_ticks_alert, tick_alert
from cde_assets.automation.retraining import drift_retrains
from cde_assets.stack import prepare_home
from cde_domain.clock import utc_now
from cde_resources.alerts.alerter import open_alerter
from cde_serving.settings import Settings
from tests.assets.bank import NAME, Bank
from tests.resources.receivers import http_receiver

CANARY = "Mrs Smith of 7 Elm Street earns 40,321.77"
DRIFT_KEY = dg.AssetKey([NAME, "drift_report"])


@pytest.fixture
def bank_on_disk(tmp_path: Path, instance_on_disk: dg.DagsterInstance) -> Bank:
    return Bank(tmp_path, instance_on_disk)


@dg.asset(key=dg.AssetKey([NAME, "loan_book"]))
def refused_book() -> None:
    raise dg.Failure("column income: 3 rows are negative", allow_retries=False)


@dg.asset(key=DRIFT_KEY)
def alarming_report() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"alarm": True, "as_of": "2026-03-01"})


@dg.asset(key=DRIFT_KEY)
def calm_report() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"alarm": False, "as_of": "2026-03-01"})


@dg.asset(key=dg.AssetKey([NAME, "evaluation"]))
def evaluation() -> None: ...


def check_of(asset: dg.AssetsDefinition, *, blocking: bool, passed: bool = False) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name="is_calibrated", blocking=blocking)
    def is_calibrated() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed, description="calibration error 0.04, allowed 0.03")

    return is_calibrated


def materialise(bank: Bank, *assets: object, job: str | None = None) -> dg.ExecuteInProcessResult:
    """Run assets and checks as a job of the portfolio."""
    definitions = dg.Definitions(
        assets=[asset for asset in assets if not isinstance(asset, dg.AssetChecksDefinition)],
        asset_checks=[asset for asset in assets if isinstance(asset, dg.AssetChecksDefinition)],
        jobs=[dg.define_asset_job(job or "monitor", tags={"portfolio": NAME})],
    )
    return definitions.resolve_job_def(job or "monitor").execute_in_process(
        instance=bank.instance, raise_on_error=False
    )


def test_a_run_that_failed_is_told_with_its_reason_and_a_link(bank: Bank):
    """The words of a refusal were chosen, and are quoted."""
    sensor = failures_alert(bank.watcher)
    bank.look(sensor)
    run = materialise(bank, refused_book, job="train_and_release")
    bank.look(sensor)

    (alert,) = bank.told
    assert "column income: 3 rows are negative" in alert["what"]
    assert alert["where"] == f"http://127.0.0.1:3000/runs/{run.run_id}"
    assert "Nothing was promoted; the champion answers on." in alert["did"]
    assert alert["severity"] == "critical"


def test_a_run_that_failed_while_the_daemon_was_down_is_told_once(bank: Bank):
    """Before the first look too, and however often the sensor looks."""
    materialise(bank, refused_book)
    sensor = failures_alert(bank.watcher)
    for _ in range(3):
        bank.look(sensor)
    assert len(bank.told) == 1


def test_what_an_exception_quotes_reaches_no_alert(bank: Bank, tmp_path: Path):
    """Searched for in all that a channel got and in all that is kept."""

    @dg.asset(key=dg.AssetKey([NAME, "loan_book"]))
    def quoting() -> None:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise ValueError(f"cannot convert {CANARY}") from error

    sensor = failures_alert(bank.watcher)
    with http_receiver() as receiver:
        bank = Bank(tmp_path / "other", bank.instance, alert_webhook=receiver.url, alert_slack=receiver.url)
        sensor = failures_alert(bank.watcher)
        materialise(bank, quoting)
        result = bank.look(sensor)
        assert len(receiver.taken) == 2
        kept = "".join(path.read_text() for path in bank.settings.home.rglob("*alerts*") if path.is_file())
        told = str(receiver.taken) + kept + str(result.cursor) + str(result.skip_reason)
    for part in ("Smith", "Elm", "40,321"):
        assert part not in told
    assert "KeyError" in told


def test_a_run_that_is_started_again_says_so(bank: Bank):
    bank.instance.create_run_for_job(
        materialise(bank, evaluation).job_def, tags={"portfolio": NAME, "dagster/will_retry": "true"}
    )
    (run,) = bank.instance.get_runs(dg.RunsFilter(tags={"dagster/will_retry": "true"}))
    bank.instance.report_run_failed(run)
    bank.look(failures_alert(bank.watcher))

    (alert,) = bank.told
    assert "its process was killed" in alert["what"]
    assert "once more by itself" in alert["did"]


def test_runs_of_another_portfolio_are_not_told(bank: Bank):
    bank.instance.create_run_for_job(materialise(bank, evaluation).job_def, tags={"portfolio": "lending_club"})
    (run,) = bank.instance.get_runs(dg.RunsFilter(tags={"portfolio": "lending_club"}))
    bank.instance.report_run_failed(run)
    bank.look(failures_alert(bank.watcher))

    assert bank.told == []


def test_more_failures_than_one_look_takes_are_all_told(bank: Bank):
    """Each about another step; none is skipped, none told twice, whoever else's runs lie between them."""
    sensor = failures_alert(bank.watcher)
    job = materialise(bank, evaluation).job_def
    for number in range(60):
        mine = number % 3 != 0
        bank.instance.create_run_for_job(job, tags={"portfolio": NAME if mine else "lending_club", "n": str(number)})
        (run,) = bank.instance.get_runs(dg.RunsFilter(tags={"n": str(number)}))
        bank.instance.report_run_failed(run)
    for _ in range(8):
        bank.look(sensor)

    state = open_alerter(bank.settings, NAME)._read()
    (told,) = state.told.values()
    assert 1 + told.held_back == 40


@pytest.mark.parametrize("blocking", [True, False])
def test_a_failed_check_is_told_whether_it_stops_the_run_or_not(bank: Bank, blocking: bool):
    sensors = failed_checks_alert(bank.watcher), failures_alert(bank.watcher)
    materialise(bank, evaluation, check_of(evaluation, blocking=blocking))
    for sensor in sensors:
        bank.look(sensor)
        bank.look(sensor)

    (alert,) = bank.told  # a run that only checks stopped is not told a second time
    assert alert["what"] == "calibration error 0.04, allowed 0.03"
    assert "checkDetail=is_calibrated" in alert["where"]
    assert ("Stopped the run" in alert["did"]) is blocking


@dg.asset(key=dg.AssetKey([NAME, "experiment_report"]))
def experiment_report() -> None: ...


@dg.asset_check(asset=experiment_report)
def guardrails_hold() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="approvals: -0.210")


@pytest.mark.parametrize(
    ("status", "did"),
    [(InstigatorStatus.RUNNING, "experiment_ramps ends the experiment"), (InstigatorStatus.STOPPED, "A person has to")],
)
def test_a_breached_guardrail_is_told_with_what_becomes_of_the_experiment(
    bank_on_disk: Bank, status: InstigatorStatus, did: str
):
    """A sensor ends it, unless somebody switched it off."""
    known(bank_on_disk, "experiment_ramps", status)
    materialise(bank_on_disk, experiment_report, guardrails_hold)
    bank_on_disk.look(failed_checks_alert(bank_on_disk.watcher))

    (alert,) = bank_on_disk.told
    assert did in alert["did"]


def test_a_check_that_passed_is_not_told(bank: Bank):
    materialise(bank, evaluation, check_of(evaluation, blocking=False, passed=True))
    bank.look(failed_checks_alert(bank.watcher))

    assert bank.told == []


def test_an_alarm_that_a_retraining_sensor_tells_is_not_told_twice(bank_on_disk: Bank):
    materialise(bank_on_disk, alarming_report, check_of(alarming_report, blocking=False))
    bank_on_disk.look(failed_checks_alert(bank_on_disk.watcher))

    assert bank_on_disk.told == []


def known(
    bank: Bank, sensor: str, status: InstigatorStatus, kind: InstigatorType = InstigatorType.SENSOR
) -> InstigatorState:
    """What Dagster keeps of a sensor once the daemon or a person has seen to it."""
    location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="cde_assets"), "german_credit")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), sensor)
    data = ScheduleInstigatorData("0 2 * * 0") if kind is InstigatorType.SCHEDULE else None
    state = InstigatorState(origin, kind, status, data)
    bank.instance.add_instigator_state(state)
    return state


def ended_tick(bank: Bank, state: InstigatorState, ended: str = "FAILURE", minutes_ago: float = 1) -> None:
    """An evaluation of a sensor that ended like this."""
    bank.instance.create_tick(
        TickData(
            state.instigator_origin_id,
            state.instigator_name,
            InstigatorType.SENSOR,
            TickStatus(ended),
            timestamp=utc_now().timestamp() - 60 * minutes_ago,
            selector_id=state.selector_id,
            error=SerializableErrorInfo(CANARY, [], "LedgerError") if ended == "FAILURE" else None,
        )
    )


@pytest.mark.parametrize(("ended", "minutes_ago", "alerts"), [("FAILURE", 1, 1), ("FAILURE", 20, 0), ("SKIPPED", 1, 0)])
def test_a_sensor_that_fails_itself_is_told_without_its_words(
    bank_on_disk: Bank, ended: str, minutes_ago: int, alerts: int
):
    """A drift sensor that raises at every look retrains nothing, and nobody would know."""
    ended_tick(bank_on_disk, known(bank_on_disk, "drift_retrains", InstigatorStatus.RUNNING), ended, minutes_ago)
    for _ in range(2):
        bank_on_disk.look(failed_ticks_alert(bank_on_disk.watcher))

    assert alerts == len(bank_on_disk.told)
    for alert in bank_on_disk.told:
        assert "drift_retrains fails" in alert["title"]
        assert "LedgerError" in alert["what"]
        assert CANARY not in str(alert)


def test_a_failed_tick_is_counted_once_however_often_it_is_looked_at(bank_on_disk: Bank):
    """Three ticks of one sensor fail, each is seen at several looks; a day later another one fails."""
    state = known(bank_on_disk, "drift_retrains", InstigatorStatus.RUNNING)
    for minutes_ago in (5, 4, 3):
        ended_tick(bank_on_disk, state, minutes_ago=minutes_ago)
        for _ in range(3):
            bank_on_disk.look(failed_ticks_alert(bank_on_disk.watcher))
    bank_on_disk.now += timedelta(days=1)
    ended_tick(bank_on_disk, state)
    bank_on_disk.look(failed_ticks_alert(bank_on_disk.watcher))

    assert [0, 2] == [alert["held_back"] for alert in bank_on_disk.told]


@pytest.mark.parametrize(
    ("kind", "name", "did"),
    [
        (InstigatorType.SENSOR, "drift_retrains", "its cursor stays where it was"),
        (InstigatorType.SCHEDULE, "weekly_retraining", "this time is passed over"),
    ],
)
def test_of_a_tick_that_failed_is_told_what_becomes_of_what_it_was_for(
    bank_on_disk: Bank, kind: InstigatorType, name: str, did: str
):
    """A schedule has no cursor: its time comes once."""
    state = known(bank_on_disk, name, InstigatorStatus.RUNNING, kind)
    tick = bank_on_disk.instance.create_tick(
        TickData(
            state.instigator_origin_id,
            name,
            kind,
            TickStatus.FAILURE,
            utc_now().timestamp(),
            error=SerializableErrorInfo(CANARY, [], "LedgerError"),
        )
    )

    assert did in tick_alert(bank_on_disk.watcher, state, tick).did


def test_a_schedule_that_fails_is_evaluated_again_for_as_long_as_its_alert_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Dagster does it once a minute; by default it would not do it at all."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))  # which the line below changes
    with dg.DagsterInstance.from_config(str(prepare_home(Settings(home=tmp_path, _env_file=None)))) as instance:
        assert instance.scheduler.max_tick_retries == 12 * 60  # type: ignore[union-attr]


def test_an_alarm_is_told_by_its_check_where_somebody_switched_the_retraining_sensor_off(bank_on_disk: Bank):
    """As the switch in the UI does it."""
    known(bank_on_disk, "drift_retrains", InstigatorStatus.STOPPED)
    materialise(bank_on_disk, alarming_report, check_of(alarming_report, blocking=False))
    bank_on_disk.look(failed_checks_alert(bank_on_disk.watcher))

    assert len(bank_on_disk.told) == 1


def test_a_failed_check_of_a_report_without_an_alarm_is_told(bank_on_disk: Bank):
    """Nobody else would."""
    materialise(bank_on_disk, calm_report, check_of(calm_report, blocking=False))
    bank_on_disk.look(failed_checks_alert(bank_on_disk.watcher))

    assert len(bank_on_disk.told) == 1


def test_an_alarm_about_an_old_day_is_told_by_its_check_alone(bank_on_disk: Bank):
    """Retraining sensors do not hear of it."""
    bank_on_disk.report("drift_report", as_of="2026-03-02")
    materialise(bank_on_disk, alarming_report, check_of(alarming_report, blocking=False))
    bank_on_disk.look(drift_retrains(bank_on_disk.watcher))
    bank_on_disk.look(failed_checks_alert(bank_on_disk.watcher))

    (alert,) = bank_on_disk.told
    assert alert["key"] == "check_failed:drift_report:is_calibrated"


def test_a_tick_that_is_cut_short_after_its_alerts_tells_nothing_twice(bank: Bank):
    sensor = failed_checks_alert(bank.watcher)
    materialise(bank, evaluation, check_of(evaluation, blocking=False))
    for _ in range(2):
        bank.look(sensor, keep_cursor=False)
    bank.look(sensor)

    assert len(bank.told) == 1


def test_an_alert_that_no_channel_took_is_tried_at_the_next_look(bank: Bank, tmp_path: Path):
    """The tick says who did not take it."""
    with http_receiver() as receiver:
        receiver.status = 500
        bank = Bank(tmp_path / "other", bank.instance, alert_webhook=receiver.url)
        sensor = failures_alert(bank.watcher)
        materialise(bank, refused_book)
        result = bank.look(sensor)
        assert "1 wait for webhook: answered 500" in str(result.skip_reason)
        receiver.status = 200
        bank.look(sensor)
        assert len(receiver.taken) == 1
