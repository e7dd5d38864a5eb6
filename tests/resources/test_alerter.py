"""Tests for `cde_resources.alerts.alerter`: nothing told twice, nothing lost."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from cde_assets.commands.alerts import app
from cde_resources.alerts import alerter as alerter_module
from cde_resources.alerts.alert import Alert, Channel, ChannelError, Message
from cde_resources.alerts.alerter import MAX_A_LOOK, Alerter, open_alerter, open_channels
from cde_resources.alerts.log_file import LogChannel
from cde_resources.alerts.webhooks import Slack, Webhook
from cde_serving.settings import Settings
from tests.lender import ROOT, run_cde
from tests.resources.receivers import HOST, HttpReceiver, http_receiver, mail_receiver

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def alert(key: str = "drift", what: str = "Two features have drifted.") -> Alert:
    return Alert(key=key, title="Drift", what=what, where="http://ui.example", did="Asked for a challenger.")


class Desk:
    """Alerters that share one memory, and the time by which they work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOON

    def alerter(self, *channels: Channel) -> Alerter:
        """A process that has just started."""
        channels = channels or (LogChannel(self.folder / "alerts.jsonl"),)
        return Alerter(
            self.folder / "alerts.json", channels, portfolio="personal_loan", period=DAY, clock=lambda: self.now
        )

    @property
    def told(self) -> list[dict]:
        """What the log took."""
        log = self.folder / "alerts.jsonl"
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as server:
        yield server


def test_the_same_key_is_told_once_a_period_also_over_a_restart(desk: Desk) -> None:
    """What was held back is counted in the next message."""
    assert desk.alerter().send(alert())
    desk.now += DAY / 2
    assert not desk.alerter().send(alert())
    assert not desk.alerter().send(alert(what="Three features have drifted."))
    desk.now += DAY / 2
    assert desk.alerter().send(alert())

    assert [0, 2] == [message["held_back"] for message in desk.told]


@pytest.mark.parametrize("early", [timedelta(0), timedelta(minutes=50)])
def test_what_happens_every_night_is_told_every_night(desk: Desk, early: timedelta) -> None:
    """Also where a night's run ends a little earlier than the one of the night before."""
    for night in range(6):
        desk.now = NOON + night * DAY - (night % 2) * early
        assert desk.alerter().send(alert())


def test_two_keys_are_two_alerts(desk: Desk) -> None:
    """At the same moment."""
    assert desk.alerter().send(alert("drift"))
    assert desk.alerter().send(alert("decay"))

    assert ["drift", "decay"] == [message["key"] for message in desk.told]


def test_a_clock_that_was_set_back_silences_a_key_for_one_period_at_most(desk: Desk) -> None:
    """The alert was told a year from now, so to speak."""
    desk.now = NOON + 365 * DAY
    desk.alerter().send(alert())
    desk.now = NOON
    assert not desk.alerter().send(alert())
    desk.now = NOON + DAY

    assert desk.alerter().send(alert())


def test_a_channel_that_fails_stops_no_other_and_gets_the_alert_when_it_is_back(
    desk: Desk, receiver: HttpReceiver
) -> None:
    """The first channel of three is down."""
    with http_receiver() as broken:
        broken.status = 500
        channels = (Webhook(broken.url), Slack(receiver.url), LogChannel(desk.folder / "alerts.jsonl"))
        assert desk.alerter(*channels).send(alert())
        assert len(receiver.taken) == len(desk.told) == 1
        assert desk.alerter(*channels).retry() == ["1 wait for webhook: answered 500"]
        broken.status = 200
        assert desk.alerter(*channels).retry() == []
        assert desk.alerter(*channels).retry() == []

        assert [message["key"] for message in broken.taken] == ["drift"]
    assert len(receiver.taken) == len(desk.told) == 1


class Exploding:
    """A channel with a mistake in it."""

    name = "exploding"

    def send(self, message: object) -> None:
        raise ZeroDivisionError("of Mrs Smith, who earns 40,000")


def test_a_mistake_in_a_channel_is_told_by_its_kind_and_stops_no_other(desk: Desk) -> None:
    """The message of the exception is left out: nobody knows what it quotes."""
    alerter = desk.alerter(Exploding(), LogChannel(desk.folder / "alerts.jsonl"))
    assert alerter.send(alert())

    assert len(desk.told) == 1
    assert alerter.waiting() == ["1 wait for exploding: failed (ZeroDivisionError)"]
    assert "Smith" not in (desk.folder / "alerts.json").read_text(encoding="utf-8")


class Counting:
    """A channel that takes so many messages and then no more."""

    name = "counting"

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.tries: list[Message] = []

    def send(self, message: Message) -> None:
        self.tries.append(message)
        if len(self.tries) > self.takes:
            raise ChannelError("full")


def test_a_channel_that_is_down_is_tried_once_however_many_alerts_wait(desk: Desk) -> None:
    """A channel that hangs must not hold up a sensor once for every alert."""
    for number in range(5):
        desk.alerter(Counting(takes=0)).send(alert(f"key {number}"))
    channel = Counting(takes=1)

    assert desk.alerter(channel).retry() == ["4 wait for counting: full"]
    assert len(channel.tries) == 2


def test_a_look_tells_a_few_of_the_alerts_that_wait(desk: Desk) -> None:
    """The others are told by the next looks, in the order in which they were raised."""
    for number in range(MAX_A_LOOK + 1):
        desk.alerter(Counting(takes=0)).send(alert(f"key {number}"))
    channel = Counting(takes=1000)

    assert len(desk.alerter(channel).retry()) == 1
    assert len(channel.tries) == MAX_A_LOOK
    assert desk.alerter(channel).retry() == []
    assert [message.alert.key for message in channel.tries] == [f"key {number}" for number in range(MAX_A_LOOK + 1)]


def test_a_receiver_that_keeps_one_sensor_waiting_holds_up_no_other(desk: Desk, receiver: HttpReceiver) -> None:
    """The others tell their alerts over the other channels, and leave to the first what waits for this one."""
    receiver.hangs = True
    channels = (LogChannel(desk.folder / "alerts.jsonl"), Webhook(receiver.url))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(desk.alerter(*channels).send, alert("drift"))
        assert receiver.asked.wait(5)
        began = time.monotonic()
        assert desk.alerter(*channels).send(alert("decay"))
        assert desk.alerter(*channels).retry() == ["2 wait for webhook: not tried yet"]
        assert time.monotonic() - began < 2
        assert not first.done()
        receiver.release.set()
        assert first.result(timeout=5)

    assert ["drift", "decay"] == [message["key"] for message in desk.told]
    assert ["drift", "decay"] == [message["key"] for message in receiver.taken]


def test_a_channel_that_was_slow_rests_so_that_many_alerts_do_not_wait_for_it_one_by_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again after a minute."""
    monkeypatch.setattr(alerter_module, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(alerter_module, "REST_SECONDS", 0.2)
    channel = Counting(takes=1000)
    alerter = desk.alerter(channel)
    for number in range(3):
        alerter.send(alert(f"key {number}"))
    assert len(channel.tries) == 1
    time.sleep(0.3)
    alerter.retry()

    assert len(channel.tries) == 2


def test_so_many_alerts_wait_for_a_channel_and_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest give way, so that a channel that never comes back fills no disk."""
    monkeypatch.setattr(alerter_module, "MAX_WAITING", 5)
    for number in range(5 + 2):
        desk.alerter(Counting(takes=0)).send(alert(f"key {number}"))
    channel = Counting(takes=1000)
    while desk.alerter(channel).retry():
        pass

    assert [message.alert.key for message in channel.tries] == [f"key {2 + number}" for number in range(5)]


def test_a_damaged_memory_silences_nothing(desk: Desk) -> None:
    """The file was cut in half."""
    desk.alerter().send(alert())
    memory = desk.folder / "alerts.json"
    memory.write_bytes(memory.read_bytes()[:20])

    assert desk.alerter().send(alert())


def test_many_sensors_that_tell_the_same_at_once_tell_it_once(desk: Desk) -> None:
    """Threads of one process, each with an alerter of its own."""
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: desk.alerter().send(alert()), range(16)))

    assert sum(told) == len(desk.told) == 1


KILLED = """
import os, signal, sys
from datetime import datetime, UTC
from pathlib import Path
from cde_resources.alerts.alert import Alert
from cde_resources.alerts.alerter import Alerter
from cde_resources.alerts.webhooks import Webhook
from datetime import timedelta

class Dying(Webhook):
    def send(self, message):
        super().send(message)
        os.kill(os.getpid(), signal.SIGKILL)

Alerter(Path(sys.argv[1]), [Dying(sys.argv[2])], portfolio="personal_loan", period=timedelta(days=1),
        clock=lambda: datetime(2026, 3, 2, 12, tzinfo=UTC)).send(
    Alert(key="drift", title="t", what="w", where="x", did="d"))
"""


def test_a_process_killed_while_it_tells_leaves_an_alert_that_is_told_again_under_the_same_id(
    desk: Desk, receiver: HttpReceiver
) -> None:
    """Once more is allowed, never is not; the receiver can tell by the id."""
    command = [sys.executable, "-c", KILLED, str(desk.folder / "alerts.json"), receiver.url]
    assert subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=60).returncode == -9
    assert not desk.alerter(Webhook(receiver.url)).send(alert())  # the key is known
    assert desk.alerter(Webhook(receiver.url)).retry() == []

    first, second = receiver.taken
    assert first["id"] == second["id"]
    desk.alerter(Webhook(receiver.url)).retry()
    assert len(receiver.taken) == 2


def test_channels_are_those_of_the_settings(tmp_path: Path) -> None:
    """The log is always one."""
    assert ["log"] == [channel.name for channel in open_channels(Settings(home=tmp_path, _env_file=None))]
    settings = Settings(
        home=tmp_path,
        alert_webhook="http://a.example/secret",
        alert_slack="https://hooks.slack.example/secret",
        alert_smtp="smtps://user:secret@mail.example",
        alert_to="risk@bank.example, duty@bank.example",
        _env_file=None,
    )

    assert ["log", "webhook", "slack", "mail"] == [channel.name for channel in open_channels(settings)]
    assert settings.alert_recipients() == ("risk@bank.example", "duty@bank.example")
    assert "secret" not in repr(settings)


def test_a_mail_server_without_recipients_is_refused(tmp_path: Path) -> None:
    """The error names the setting and not the password."""
    with pytest.raises(ValueError, match="CDE_ALERT_TO names nobody") as error:
        Settings(home=tmp_path, alert_smtp="smtps://user:secret@mail.example", _env_file=None)
    assert "secret" not in str(error.value)


def test_an_address_that_is_no_mail_server_is_refused_when_the_channels_are_opened(tmp_path: Path) -> None:
    """The error names the setting and not the password."""
    settings = Settings(home=tmp_path, alert_smtp="smtp://user:secret@mail.example", alert_to="a@b.c", _env_file=None)

    with pytest.raises(ValueError, match="CDE_ALERT_SMTP: a password is sent over TLS only") as error:
        open_alerter(settings, "personal_loan")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["alert_from", "alert_to"])
def test_addresses_over_several_lines_are_refused_when_the_channels_are_opened(tmp_path: Path, name: str) -> None:
    """No mail could bear them in its head; the error names the setting."""
    addresses = {"alert_to": "risk@bank.example", name: "risk@bank.example\nduty@bank.example"}
    settings = Settings(home=tmp_path, alert_smtp="smtp://mail.example", **addresses, _env_file=None)

    with pytest.raises(ValueError, match=f"CDE_{name.upper()}: a line break"):
        open_alerter(settings, "personal_loan")


@pytest.mark.parametrize("hours", ["1e12", "inf", "nan", "0", "-1"])
def test_an_alert_is_repeated_after_a_year_at_the_latest(tmp_path: Path, hours: str) -> None:
    """No calendar reaches further than some thousand years."""
    with pytest.raises(ValidationError, match="alert_repeat_hours"):
        Settings(home=tmp_path, alert_repeat_hours=hours, _env_file=None)


@pytest.mark.parametrize(
    ("command", "setting", "said"),
    [
        ("test", {"CDE_ALERT_TO": "risk@bank.example\nduty@bank.example"}, "CDE_ALERT_TO: a line break"),
        ("waiting", {"CDE_ALERT_REPEAT_HOURS": "1e12"}, "alert_repeat_hours"),
    ],
)
def test_the_command_says_which_setting_is_wrong(
    tmp_path: Path, command: str, setting: dict[str, str], said: str
) -> None:
    """Exit status 2."""
    surroundings = {"CDE_HOME": str(tmp_path), "CDE_PORTFOLIO": None, "CDE_ALERT_SMTP": "smtp://mail.example"}
    done = CliRunner().invoke(app, [command, "german_credit"], env=surroundings | setting)

    assert done.exit_code == 2
    assert said in done.stderr


def test_the_command_tries_every_channel_and_names_those_that_did_not_take_the_test(
    tmp_path: Path, receiver: HttpReceiver
) -> None:
    """Exit status 0 where all took it, 1 where one did not."""
    with mail_receiver() as mail:
        channels = {
            "CDE_ALERT_SLACK": receiver.url,
            "CDE_ALERT_SMTP": f"smtp://{HOST}:{mail.port}",
            "CDE_ALERT_TO": "risk@bank.example",
        }
        done = run_cde(tmp_path, "alerts", "test", "german_credit", **channels)
        assert (done.returncode, done.stdout) == (0, "log: taken\nslack: taken\nmail: taken\n"), done.stderr
        receiver.status = 500
        refused = run_cde(tmp_path, "alerts", "test", "german_credit", **channels)
    assert refused.returncode == 1
    assert "slack: answered 500" in refused.stderr
    assert len(mail.mails) == 2


def test_the_command_says_what_waits(tmp_path: Path, receiver: HttpReceiver) -> None:
    """An alert was not taken by the webhook."""
    receiver.status = 500
    settings = Settings(home=tmp_path, alert_webhook=receiver.url, _env_file=None)
    open_alerter(settings, "german_credit").send(alert())
    done = run_cde(tmp_path, "alerts", "waiting", "german_credit")

    assert (done.returncode, done.stdout) == (1, "1 wait for webhook: answered 500\n")
