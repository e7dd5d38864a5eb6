"""Channels over HTTP: a webhook of any kind, and Slack's."""

from collections.abc import Mapping
from typing import Any

import httpx

from cde_resources.alerts.alert import ChannelError, Message
from cde_resources.alerts.deadline import SECONDS, Watch, within

SLACK_SECTION = 3_000 - len(" ...")  # https://docs.slack.dev/reference/block-kit/blocks/section-block
SLACK_MARKS = {"info": ":information_source:", "warning": ":warning:", "critical": ":rotating_light:"}


class Webhook:
    """
    Posts the message as JSON.

    The header `Idempotency-Key` bears the message's id: a receiver that cares can tell a repetition after a crash.
    """

    name = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, message: Message) -> None:
        """Post the message; any 2xx takes it."""
        _post(self._url, message.json(), {"idempotency-key": message.id})


class Slack:
    """Posts to an incoming webhook of Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks."""

    name = "slack"

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, message: Message) -> None:
        """Post the message as blocks, with the title as the text of the notification."""
        title = _escaped(message.subject)
        sections = [f"*{name}*\n{_escaped(said)}"[:SLACK_SECTION] for name, said in message.parts().items()]
        blocks = [
            _section(f"{SLACK_MARKS[message.alert.severity]} *{title}*"),
            *(_section(text) for text in sections),
        ]
        _post(self._url, {"text": title, "blocks": blocks}, {})


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _post(url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    # Of errors only the kind is told: a webhook's address is its password.
    try:
        status = within(SECONDS, lambda watch: _status(url, body, headers, watch))
    except TimeoutError:
        raise ChannelError(f"no answer in {SECONDS:g} s") from None
    except httpx.HTTPError as error:
        raise ChannelError(f"no answer ({type(error).__name__})") from None
    if not httpx.codes.is_success(status):
        raise ChannelError(f"answered {status}")


def _status(url: str, body: Mapping[str, Any], headers: Mapping[str, str], watch: Watch) -> int:
    def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            watch(info["return_value"].get_extra_info("socket"))

    with (
        httpx.Client(timeout=SECONDS) as client,
        client.stream("POST", url, json=body, headers=dict(headers), extensions={"trace": trace}) as answer,
    ):
        return answer.status_code  # what else is answered nobody reads
