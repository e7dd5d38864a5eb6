"""Tells alerts: once a period and key, over every channel, again where a channel did not take them."""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from pydantic import BaseModel, ValidationError

from cde_domain.clock import Clock
from cde_resources.alerts.alert import Alert, Channel, ChannelError, Message
from cde_resources.alerts.log_file import LogChannel
from cde_resources.alerts.mail import Mail, MailServer
from cde_resources.alerts.webhooks import Slack, Webhook
from cde_resources.clock import opened_clock
from cde_serving.settings import Settings

STATE = "alerts.json"
MAX_WAITING = 100  # messages a channel; the oldest give way

log = structlog.get_logger()


class Told(BaseModel):
    """When a key was told, and how often it was held back since."""

    at: datetime
    held_back: int = 0


class Waiting(BaseModel):
    """A message, the channels that have not taken it, and why each did not the last time."""

    message: Message
    channels: dict[str, str]


class State(BaseModel):
    """What an `Alerter` remembers."""

    told: dict[str, Told] = {}
    waiting: list[Waiting] = []


class Alerter:
    """
    Tells the alerts of one portfolio.

    Memory is a file, so that a restart neither repeats nor forgets. A message is written there before it is sent and
    struck off after each channel took it: after a crash in between a channel gets it once more, with the same id.
    Channels that fail stop no other, and are tried again by `retry`, which sensors call.
    """

    def __init__(
        self, state: Path, channels: Sequence[Channel], *, portfolio: str, period: timedelta, clock: Clock
    ) -> None:
        self._path = state
        self._channels = {channel.name: channel for channel in channels}
        self._portfolio = portfolio
        self._period = period
        self._clock = clock

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels that are set up."""
        return tuple(self._channels.values())

    def send(self, alert: Alert) -> bool:
        """Tell an alert over every channel; False if its key was told within the period, so that it is only counted."""
        with self._memory() as state:
            now = self._clock()
            told = state.told.get(alert.key)
            if told is not None and self._is_recent(told, now):
                told.held_back += 1
                self._write(state)
                return False
            message = Message(
                id=hashlib.sha256(f"{self._portfolio}\n{alert.key}\n{now.isoformat()}".encode()).hexdigest()[:32],
                portfolio=self._portfolio,
                at=now,
                alert=alert.trimmed(),
                held_back=told.held_back if told else 0,
            )
            state.told[alert.key] = Told(at=now)
            state.waiting.append(Waiting(message=message, channels=dict.fromkeys(self._channels, "not tried yet")))
            self._write(state)
            self._deliver(state)
            return True

    def retry(self) -> list[str]:
        """Try again what waits; returns what still waits, a sentence a channel."""
        with self._memory() as state:
            if state.waiting:
                self._deliver(state)
            return _sentences(state)

    def waiting(self) -> list[str]:
        """What waits, a sentence a channel."""
        with self._memory() as state:
            return _sentences(state)

    def _is_recent(self, told: Told, now: datetime) -> bool:
        # A clock that was set back must not silence a key until it has caught up.
        told.at = min(told.at, now)
        return now - told.at < self._period

    def _deliver(self, state: State) -> None:
        down: dict[str, str] = {}  # one try a channel and pass: a channel that hangs costs its time-out once
        for waiting in list(state.waiting):
            for name in list(waiting.channels):
                if name not in self._channels:  # no longer set up
                    del waiting.channels[name]
                    continue
                if name not in down:
                    problem = self._try(self._channels[name], waiting.message)
                    if problem is None:
                        del waiting.channels[name]
                        self._write(state)
                        continue
                    down[name] = problem
                waiting.channels[name] = down[name]
        state.waiting = [waiting for waiting in state.waiting if waiting.channels]
        _drop_oldest(state)
        self._forget(state)
        self._write(state)

    def _try(self, channel: Channel, message: Message) -> str | None:
        try:
            channel.send(message)
        except ChannelError as error:
            problem = str(error)
        except Exception as error:  # an error of one channel must not keep the others from telling
            problem = f"failed ({type(error).__name__})"
        else:
            return None
        log.error("an alert was not taken and waits", channel=channel.name, problem=problem, alert=message.id)
        return problem

    def _forget(self, state: State) -> None:
        oldest = self._clock() - 2 * self._period
        state.told = {key: told for key, told in state.told.items() if told.at > oldest}

    @contextmanager
    def _memory(self) -> Iterator[State]:
        """The state, for this process and thread alone."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()

    def _read(self) -> State:
        try:
            return State.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return State()
        except ValidationError:
            # Telling something twice does less harm than never telling anything again.
            log.error("the memory of alerts is damaged and begins anew", file=str(self._path))
            return State()

    def _write(self, state: State) -> None:
        beside = self._path.with_name(f".{self._path.name}")
        with beside.open("wb") as file:
            file.write(state.model_dump_json(indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)


def _drop_oldest(state: State) -> None:
    names = {name for waiting in state.waiting for name in waiting.channels}
    for name in names:
        of_channel = [waiting for waiting in state.waiting if name in waiting.channels]
        for waiting in of_channel[:-MAX_WAITING]:
            del waiting.channels[name]
            log.error("too many alerts wait: the oldest is dropped", channel=name, alert=waiting.message.id)
    state.waiting = [waiting for waiting in state.waiting if waiting.channels]


def _sentences(state: State) -> list[str]:
    problems: dict[str, list[str]] = {}
    for waiting in state.waiting:
        for name, problem in waiting.channels.items():
            problems.setdefault(name, []).append(problem)
    return [f"{len(found)} wait for {name}: {found[-1]}" for name, found in sorted(problems.items())]


def open_channels(settings: Settings) -> list[Channel]:
    """
    The channels that the settings name; the log is always one.

    Raises:
        ValueError: `CDE_ALERT_SMTP` is no mail server.
    """
    channels: list[Channel] = [LogChannel(settings.home / "logs" / "alerts.jsonl")]
    if settings.alert_webhook:
        channels.append(Webhook(str(settings.alert_webhook.get_secret_value())))
    if settings.alert_slack:
        channels.append(Slack(str(settings.alert_slack.get_secret_value())))
    if settings.alert_smtp:
        try:
            server = MailServer.of(settings.alert_smtp.get_secret_value())
        except ValueError as error:
            raise ValueError(f"CDE_ALERT_SMTP: {error}") from None
        channels.append(Mail(server, sender=settings.alert_from, to=settings.alert_recipients()))
    return channels


def open_alerter(settings: Settings, portfolio: str, clock: Clock | None = None) -> Alerter:
    """
    What tells the alerts of the portfolio of this name, by the settings' clock unless one is given.

    Raises:
        ValueError: `CDE_ALERT_SMTP` is no mail server.
    """
    return Alerter(
        settings.portfolio_home(portfolio) / STATE,
        open_channels(settings),
        portfolio=portfolio,
        period=timedelta(hours=settings.alert_repeat_hours),
        clock=clock or opened_clock(str(settings.clock_file) if settings.clock_file else None),
    )
