"""Tells alerts: once a period and key, over every channel, again where a channel did not take them."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from pydantic import BaseModel, ValidationError

from cde_domain.clock import Clock
from cde_resources.alerts.alert import Alert, Channel, Message, hand_over
from cde_resources.alerts.log_file import LogChannel
from cde_resources.alerts.mail import Mail, MailServer
from cde_resources.alerts.webhooks import Slack, Webhook
from cde_resources.clock import opened_clock
from cde_serving.settings import Settings

STATE = "alerts.json"
MAX_WAITING = 100  # messages a channel; the oldest give way
MAX_A_LOOK = 3  # messages a channel: the look of a sensor that tells them has a minute
SLOW_SECONDS = 3.0  # a channel that took longer rests, so that it does not hold up a look once for every alert
REST_SECONDS = 60.0

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
    Channels that fail stop no other, and are tried again by `retry`, which sensors call. While one process tells a
    channel, the others go on without waiting for it.
    """

    def __init__(
        self, state: Path, channels: Sequence[Channel], *, portfolio: str, period: timedelta, clock: Clock
    ) -> None:
        self._path = state
        self._channels = {channel.name: channel for channel in channels}
        self._portfolio = portfolio
        # What happens once a period, a little earlier one time than the other, is told each time.
        self._period = period * 23 / 24
        self._clock = clock
        self._rests_until: dict[str, float] = {}

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
            self._tidy(state)
            self._write(state)
        self._deliver()
        return True

    def retry(self) -> list[str]:
        """Try again some of what waits; returns what still waits, a sentence a channel."""
        with self._memory() as state:
            if state.waiting:
                self._tidy(state)
                self._write(state)
        self._deliver()
        return self.waiting()

    def waiting(self) -> list[str]:
        """What waits, a sentence a channel."""
        with self._memory() as state:
            return _sentences(state)

    def _is_recent(self, told: Told, now: datetime) -> bool:
        # A clock that was set back must not silence a key until it has caught up.
        told.at = min(told.at, now)
        return now - told.at < self._period

    def _deliver(self) -> None:
        for channel in self._channels.values():
            for _ in range(MAX_A_LOOK):
                if not self._tell_oldest(channel):
                    break

    def _tell_oldest(self, channel: Channel) -> bool:
        """Whether there may be more to tell: not if nothing waits, or the channel rests, is in use or took nothing."""
        if self._oldest(channel) is None or time.monotonic() < self._rests_until.get(channel.name, 0.0):
            return False
        with self._in_use(channel) as by_us:
            if not by_us:  # whoever uses it looks for more afterwards
                return False
            message = self._oldest(channel)
            if message is None:
                return True
            began = time.monotonic()
            taken, said = hand_over(channel, message)
            ended = time.monotonic()
            if ended - began > SLOW_SECONDS:
                self._rests_until[channel.name] = ended + REST_SECONDS
            self._settle(channel, message, None if taken else str(said))
        if not taken:
            log.error("an alert was not taken and waits", channel=channel.name, problem=said, alert=message.id)
        elif said:
            log.warning("an alert did not reach everybody", channel=channel.name, problem=said, alert=message.id)
        return taken

    def _oldest(self, channel: Channel) -> Message | None:
        with self._memory() as state:
            return next((waiting.message for waiting in state.waiting if channel.name in waiting.channels), None)

    def _settle(self, channel: Channel, message: Message, problem: str | None) -> None:
        with self._memory() as state:
            for waiting in state.waiting:
                if waiting.message.id == message.id and channel.name in waiting.channels:
                    if problem is None:
                        del waiting.channels[channel.name]
                    else:
                        waiting.channels[channel.name] = problem
            self._tidy(state)
            self._write(state)

    def _tidy(self, state: State) -> None:
        """Strike off what waits for nothing, for a channel that is no longer set up or for too long, and old keys."""
        for waiting in state.waiting:
            waiting.channels = {name: said for name, said in waiting.channels.items() if name in self._channels}
        _drop_oldest(state)
        oldest = self._clock() - 2 * self._period
        state.told = {key: told for key, told in state.told.items() if told.at > oldest}

    @contextmanager
    def _in_use(self, channel: Channel) -> Iterator[bool]:
        """Whether nobody else tells this channel while the block lasts; the lock of a killed process is released."""
        with self._path.with_suffix(f".{channel.name}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

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
    # The oldest is the one that was tried.
    return [f"{len(found)} wait for {name}: {found[0]}" for name, found in sorted(problems.items())]


def open_channels(settings: Settings) -> list[Channel]:
    """
    The channels that the settings name; the log is always one.

    Raises:
        ValueError: `CDE_ALERT_SMTP` is no mail server, or `CDE_ALERT_FROM` or `CDE_ALERT_TO` no line of addresses.
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
        for name, addresses in (("CDE_ALERT_FROM", settings.alert_from), ("CDE_ALERT_TO", settings.alert_to)):
            if not addresses.isprintable():
                raise ValueError(f"{name}: a line break or another character that is not printed; put commas between")
        channels.append(Mail(server, sender=settings.alert_from, to=settings.alert_recipients()))
    return channels


def open_alerter(settings: Settings, portfolio: str, clock: Clock | None = None) -> Alerter:
    """
    What tells the alerts of the portfolio of this name, by the settings' clock unless one is given.

    Raises:
        ValueError: `CDE_ALERT_SMTP` is no mail server, or `CDE_ALERT_FROM` or `CDE_ALERT_TO` no line of addresses.
    """
    return Alerter(
        settings.portfolio_home(portfolio) / STATE,
        open_channels(settings),
        portfolio=portfolio,
        period=timedelta(hours=settings.alert_repeat_hours),
        clock=clock or opened_clock(str(settings.clock_file) if settings.clock_file else None),
    )
