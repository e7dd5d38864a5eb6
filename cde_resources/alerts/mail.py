"""The channel over e-mail."""

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

from cde_resources.alerts.alert import ChannelError, Message
from cde_resources.alerts.deadline import SECONDS, Watch, within

PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


@dataclass(frozen=True)
class MailServer:
    """
    A mail server. `smtp+starttls` refuses to send where TLS cannot be had, `smtps` is TLS from the first byte.

    A server's certificate is checked against the system's authorities, or those that `SSL_CERT_FILE` names.
    """

    scheme: Literal["smtp", "smtp+starttls", "smtps"]
    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """
        Read `SCHEME://[USER:PASSWORD@]HOST[:PORT]`; what is no letter or digit in user and password is %-encoded.

        Raises:
            ValueError: it is something else, or would send a password in clear.
        """
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError("give smtp+starttls://USER:PASSWORD@HOST:PORT, smtps://... or smtp://HOST:PORT")
        if (parts.username is None) != (parts.password is None):
            raise ValueError("give user and password, or neither")
        if parts.username is not None and parts.scheme == "smtp":
            raise ValueError("a password is sent over TLS only: give smtp+starttls:// or smtps://")
        return cls(
            scheme=parts.scheme,  # type: ignore[arg-type]
            host=parts.hostname,
            port=parts.port or PORTS[parts.scheme],
            user=unquote(parts.username) if parts.username is not None else None,
            password=unquote(parts.password) if parts.password is not None else None,
        )

    def deliver(self, mail: EmailMessage, watch: Watch) -> Mapping[str, tuple[int, bytes]]:
        """
        Hand a mail to the server over a connection that `watch` sees; returns the answers by refused recipient.

        Whoever is not among them has it: what the server says after it took the mail changes nothing.

        Raises:
            OSError, smtplib.SMTPException: nobody has it.
        """
        client = self._connected(watch)
        try:
            if self.scheme == "smtp+starttls":
                client.starttls(context=ssl.create_default_context())
            if self.user is not None and self.password is not None:
                client.login(self.user, self.password)
            return client.send_message(mail)
        finally:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client.quit()
            client.close()

    def _connected(self, watch: Watch) -> smtplib.SMTP:
        class Watched(smtplib.SMTP):
            def _get_socket(self, *address: Any) -> socket.socket:
                connection: socket.socket = super()._get_socket(*address)  # type: ignore[misc]
                watch(connection)
                return connection

        class WatchedTLS(smtplib.SMTP_SSL, Watched):  # in this order TLS is put over the watched connection
            pass

        if self.scheme == "smtps":
            return WatchedTLS(self.host, self.port, timeout=SECONDS, context=ssl.create_default_context())
        return Watched(self.host, self.port, timeout=SECONDS)


class Mail:
    """Sends each message to everybody on a list."""

    name = "mail"

    def __init__(self, server: MailServer, *, sender: str, to: Sequence[str]) -> None:
        self._server = server
        self._sender = sender
        self._to = tuple(to)

    def send(self, message: Message) -> str | None:
        """Send the message; returns how many on the list were refused, if any was. Who took it has it."""
        mail = EmailMessage()
        mail["Subject"] = message.subject
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._to)
        mail["Date"] = format_datetime(message.at)
        mail["Message-ID"] = f"<{message.id}@{self._sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        mail.set_content(message.text() + "\n")
        try:
            refused = within(SECONDS, lambda watch: self._server.deliver(mail, watch))
        except smtplib.SMTPResponseException as error:
            raise ChannelError(f"the mail server answered {error.smtp_code}") from None
        except (OSError, smtplib.SMTPException) as error:
            raise ChannelError(f"the mail was not taken ({type(error).__name__})") from None
        if not refused:
            return None
        codes = ", ".join(str(code) for code in sorted({code for code, _ in refused.values()}))
        return f"{len(refused)} of {len(self._to)} recipients were refused ({codes})"
