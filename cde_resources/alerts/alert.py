"""What is told, and what every channel can do."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Protocol, Self

from pydantic import TypeAdapter

Severity = Literal["info", "warning", "critical"]

TITLE_LENGTH = 150
TEXT_LENGTH = 2_000


class ChannelError(RuntimeError):
    """A channel that did not take a message; says why without address, key or text."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """
    Something that a person should know of.

    `key` says what it is about: the same key is told once a period. `what` happened and what the system `did` by itself
    are sentences without a value of any person; `where` is the link to look at.
    """

    key: str
    title: str
    what: str
    where: str
    did: str
    severity: Severity = "warning"

    def trimmed(self) -> Self:
        """The same as every channel can take it: a title of one line, texts of bounded length."""
        return replace(
            self,
            title=_cut(" ".join(self.title.split()), TITLE_LENGTH),
            what=_cut(self.what.strip(), TEXT_LENGTH),
            did=_cut(self.did.strip(), TEXT_LENGTH),
        )


@dataclass(frozen=True, kw_only=True)
class Message:
    """
    An alert on its way. A message that is sent again after a crash bears the same `id`.

    `held_back` counts the alerts of the same key that were not told since the message before.
    """

    id: str
    portfolio: str
    at: datetime
    alert: Alert
    held_back: int = 0

    @property
    def subject(self) -> str:
        """One line for a list of messages."""
        return f"[{self.portfolio}] {self.alert.title}"

    def text(self) -> str:
        """Everything, for a person, in plain text."""
        return "\n\n".join(f"{name}: {said}" for name, said in self.parts().items())

    def parts(self) -> dict[str, str]:
        """What a person reads, in order."""
        parts = {
            "What happened": self.alert.what,
            "Where to look": self.alert.where,
            "What the system did": self.alert.did,
            "When": f"{self.at:%Y-%m-%d %H:%M} UTC",
        }
        if self.held_back:
            parts["Not told since the last time"] = f"{self.held_back} more of the same"
        return parts

    def json(self) -> dict[str, Any]:
        """Everything, for a program."""
        data: dict[str, Any] = _MESSAGE.dump_python(self, mode="json")
        return {"id": data["id"], "portfolio": data["portfolio"], "at": data["at"], **data["alert"]} | {
            "held_back": data["held_back"]
        }


_MESSAGE = TypeAdapter(Message)


class Channel(Protocol):
    """A way to reach people."""

    @property
    def name(self) -> str:
        """What settings, logs and the command call it."""

    def send(self, message: Message) -> str | None:
        """
        Hand over a message; a return means that it was taken, and says so if not everybody it was meant for got it.

        Raises:
            ChannelError: it was not.
        """


def hand_over(channel: Channel, message: Message) -> tuple[bool, str | None]:
    """Whether a channel took a message, and what a person should know of it, without address, key or text."""
    try:
        return True, channel.send(message)
    except ChannelError as error:
        return False, str(error)
    except Exception as error:  # a mistake in one channel must not keep the others from telling
        return False, f"failed ({type(error).__name__})"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 4].rstrip()} ..."
