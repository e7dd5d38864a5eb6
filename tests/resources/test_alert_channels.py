"""Tests for the channels of alerts, each with a real receiver."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from cde_resources.alerts.alert import Alert, Channel, ChannelError, Message
from cde_resources.alerts.deadline import Watch, within
from cde_resources.alerts.log_file import LogChannel
from cde_resources.alerts.mail import Mail, MailServer
from cde_resources.alerts.webhooks import Slack, Webhook
from tests.resources.receivers import (
    HOST,
    PASSWORD,
    USER,
    HttpReceiver,
    certificate,
    dripping_server,
    http_receiver,
    mail_receiver,
)

ALERT = Alert(
    key="drift",
    title="Drift in <income>\n& debts",
    what="2 features have drifted.",
    where="http://ui.example/assets/personal_loan/drift_report",
    did="Asked for a challenger.",
)
MESSAGE = Message(
    id="0" * 32, portfolio="personal_loan", at=datetime(2026, 3, 2, 12, tzinfo=UTC), alert=ALERT.trimmed(), held_back=3
)
LOGIN = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}"


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as server:
        yield server


def assert_says_everything(text: str) -> None:
    for said in ("2 features have drifted.", ALERT.where, "Asked for a challenger.", "2026-03-02 12:00 UTC", "3 more"):
        assert said in text


def test_the_log_keeps_every_alert_as_a_line_of_json(tmp_path: Path) -> None:
    """Two alerts are two lines."""
    channel = LogChannel(tmp_path / "logs" / "alerts.jsonl")
    channel.send(MESSAGE)
    channel.send(MESSAGE)

    first, second = (tmp_path / "logs" / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    assert first == second
    assert json.loads(first)["what"] == ALERT.what


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A folder stands where the file should be."""
    (tmp_path / "alerts.jsonl").mkdir()

    with pytest.raises(ChannelError, match=r"alerts\.jsonl cannot be written"):
        LogChannel(tmp_path / "alerts.jsonl").send(MESSAGE)


def test_a_webhook_gets_the_alert_as_json_with_a_key_for_repetitions(receiver: HttpReceiver) -> None:
    """What happened, where to look, what the system did, how bad it is, and how often it was held back."""
    Webhook(receiver.url).send(MESSAGE)

    (body,) = receiver.taken
    assert body == {
        "id": MESSAGE.id,
        "portfolio": "personal_loan",
        "at": "2026-03-02T12:00:00Z",
        "key": "drift",
        "title": "Drift in <income> & debts",
        "what": ALERT.what,
        "where": ALERT.where,
        "did": ALERT.did,
        "severity": "warning",
        "held_back": 3,
    }
    assert receiver.headers[0]["idempotency-key"] == MESSAGE.id


def test_slack_gets_blocks_whose_text_is_no_markup(receiver: HttpReceiver) -> None:
    """What an alert says can neither mention somebody nor make a link of its own."""
    Slack(receiver.url).send(MESSAGE)

    (body,) = receiver.taken
    assert body["text"] == "[personal_loan] Drift in &lt;income&gt; &amp; debts"
    assert {block["type"] for block in body["blocks"]} == {"section"}
    assert_says_everything("\n".join(block["text"]["text"] for block in body["blocks"]))


def test_slacks_limits_hold_for_the_longest_alert(receiver: HttpReceiver) -> None:
    """3,000 characters a section, https://docs.slack.dev/reference/block-kit/blocks/section-block."""
    long = Alert(key="k", title="t" * 5000, what="&" * 9000, where="http://ui.example", did="d" * 9000)
    Slack(receiver.url).send(Message(id="1", portfolio="p", at=MESSAGE.at, alert=long.trimmed()))

    assert all(len(block["text"]["text"]) <= 3000 for block in receiver.taken[0]["blocks"])


@pytest.mark.parametrize("channel", [Webhook, Slack])
@pytest.mark.parametrize("status", [302, 400, 404, 429, 500])
def test_a_status_other_than_2xx_did_not_take_the_alert(channel: type, status: int, receiver: HttpReceiver) -> None:
    """The error names the status and never the address, which is a password."""
    receiver.status = status

    with pytest.raises(ChannelError, match=f"^answered {status}$"):
        channel(receiver.url).send(MESSAGE)


def test_a_webhook_where_nobody_listens_is_told_without_its_address(receiver: HttpReceiver) -> None:
    """The receiver is closed first."""
    url = receiver.url
    receiver.shutdown()
    receiver.server_close()

    with pytest.raises(ChannelError) as error:
        Webhook(url).send(MESSAGE)
    assert "secret" not in str(error.value)
    assert "ConnectError" in str(error.value)


@pytest.mark.parametrize(
    ("channel", "beginning"),
    [
        (lambda port: Webhook(f"http://{HOST}:{port}/secret"), b"HTTP/1.1 200 OK\r\nX-Slow: "),
        (lambda port: Mail(MailServer.of(f"smtp://{HOST}:{port}"), sender="a@b.example", to=("c@d.example",)), b"220 "),
    ],
)
def test_a_receiver_that_answers_a_byte_at_a_time_is_left_at_the_deadline(
    channel: Callable[[int], Channel], beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time, and there is no end of them; no thread is left behind."""
    monkeypatch.setattr("cde_resources.alerts.webhooks.SECONDS", 0.5)
    monkeypatch.setattr("cde_resources.alerts.mail.SECONDS", 0.5)
    began = time.monotonic()
    with dripping_server(beginning) as port, pytest.raises(ChannelError, match=r"no answer in 0\.5 s|TimeoutError"):
        channel(port).send(MESSAGE)

    assert time.monotonic() - began < 2
    assert "delivery" not in {thread.name for thread in threading.enumerate()}


def test_only_the_status_of_an_answer_counts() -> None:
    """What the receiver says below it has no end."""
    began = time.monotonic()
    with dripping_server(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        Webhook(f"http://{HOST}:{port}/secret").send(MESSAGE)

    assert time.monotonic() - began < 5


def test_what_is_done_after_the_deadline_reaches_nobody() -> None:
    """A name is looked up for longer than a delivery may take, and the connection comes when nobody waits for it."""
    ours, theirs = socket.socketpair()
    late = threading.Event()

    def deliver(watch: Watch) -> None:
        late.wait(5)
        watch(ours)
        ours.sendall(b"too late")

    with ours, theirs:
        with pytest.raises(TimeoutError):
            within(0.05, deliver)
        late.set()
        theirs.settimeout(5)
        assert theirs.recv(100) == b""


def test_a_mail_reaches_everybody_on_the_list() -> None:
    """In clear, to a server that asks for no login."""
    with mail_receiver() as receiver:
        server = MailServer.of(f"smtp://{HOST}:{receiver.port}")
        Mail(server, sender="engine@bank.example", to=("risk@bank.example", "duty@bank.example")).send(MESSAGE)

    (mail,) = receiver.mails
    assert mail["Subject"] == "[personal_loan] Drift in <income> & debts"
    assert mail["From"] == "engine@bank.example"
    assert receiver.recipients == [["risk@bank.example", "duty@bank.example"]]
    assert mail["Message-ID"] == f"<{MESSAGE.id}@bank.example>"
    assert_says_everything(mail.get_content())


def test_who_took_a_mail_has_it_and_who_was_refused_is_counted() -> None:
    """Another on the list does not exist: no reason to send everybody else the same again. No address is told."""
    with mail_receiver() as receiver:
        receiver.unknown = "gone@bank.example"
        server = MailServer.of(f"smtp://{HOST}:{receiver.port}")
        said = Mail(server, sender="a@b.example", to=("risk@bank.example", "gone@bank.example")).send(MESSAGE)

    assert said == "1 of 2 recipients were refused (550)"
    assert receiver.recipients == [["risk@bank.example"]]


def test_a_mail_that_nobody_took_waits() -> None:
    """The only one on the list does not exist."""
    with mail_receiver() as receiver:
        receiver.unknown = "gone@bank.example"
        server = MailServer.of(f"smtp://{HOST}:{receiver.port}")
        with pytest.raises(ChannelError, match="SMTPRecipientsRefused"):
            Mail(server, sender="a@b.example", to=("gone@bank.example",)).send(MESSAGE)


def test_a_mail_is_taken_whatever_the_server_answers_to_the_goodbye() -> None:
    """250 where 221 is due."""
    with mail_receiver() as receiver:
        receiver.says_goodbye = False
        Mail(MailServer.of(f"smtp://{HOST}:{receiver.port}"), sender="a@b.example", to=("c@d.example",)).send(MESSAGE)

    assert len(receiver.mails) == 1


@pytest.mark.parametrize("scheme", ["smtp+starttls", "smtps"])
def test_a_mail_goes_over_tls_to_a_server_with_a_trusted_certificate(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With STARTTLS the server also insists on the login."""
    tls, authority = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    starttls = scheme == "smtp+starttls"
    with mail_receiver(tls=tls, starttls=starttls) as receiver:
        login = f"{LOGIN}@" if starttls else ""
        server = MailServer.of(f"{scheme}://{login}localhost:{receiver.port}")
        Mail(server, sender="a@b.example", to=("c@d.example",)).send(MESSAGE)

    assert receiver.encrypted == [True]


def test_no_mail_and_no_password_goes_to_a_server_whose_certificate_nobody_vouches_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is not among the authorities of this machine."""
    tls, _ = certificate(tmp_path)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with mail_receiver(tls=tls, starttls=True) as receiver:
        server = MailServer.of(f"smtp+starttls://{LOGIN}@localhost:{receiver.port}")
        with pytest.raises(ChannelError, match="SSLCertVerificationError"):
            Mail(server, sender="a@b.example", to=("c@d.example",)).send(MESSAGE)

    assert receiver.mails == []


def test_no_mail_goes_in_clear_where_starttls_was_asked_for() -> None:
    """The server does not offer it."""
    with mail_receiver() as receiver:
        server = MailServer.of(f"smtp+starttls://{LOGIN}@{HOST}:{receiver.port}")
        with pytest.raises(ChannelError, match="SMTPNotSupportedError"):
            Mail(server, sender="a@b.example", to=("c@d.example",)).send(MESSAGE)

    assert receiver.mails == []


def test_a_wrong_password_is_told_without_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says 535."""
    tls, authority = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with mail_receiver(tls=tls, starttls=True) as receiver:
        server = MailServer.of(f"smtp+starttls://user:wrong@localhost:{receiver.port}")
        with pytest.raises(ChannelError, match=r"^the mail server answered 535$"):
            Mail(server, sender="a@b.example", to=("c@d.example",)).send(MESSAGE)


def test_a_server_that_puts_mail_off_did_not_take_it() -> None:
    """451 (try later) leaves the message with the sender."""
    with mail_receiver() as receiver:
        receiver.refuses = True
        server = MailServer.of(f"smtp://{HOST}:{receiver.port}")
        with pytest.raises(ChannelError, match="451"):
            Mail(server, sender="a@b.example", to=("c@d.example",)).send(MESSAGE)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://mail.example", "give smtp"),
        ("smtp://", "give smtp"),
        ("smtp://mail.example/inbox", "give smtp"),
        ("smtps://user@mail.example", "user and password, or neither"),
        ("smtp://user:password@mail.example", "over TLS only"),
    ],
)
def test_an_address_of_a_mail_server_that_is_none_is_refused(url: str, told: str) -> None:
    """Also one that would send a password in clear."""
    with pytest.raises(ValueError, match=told):
        MailServer.of(url)


def test_a_mail_servers_password_is_not_shown() -> None:
    """Not in the representation that logs and errors show."""
    assert "secret" not in repr(MailServer.of("smtps://user:secret@mail.example"))
