"""Receivers of alerts on loopback: an HTTP server and a mail server that take, refuse or hang on demand."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cde_assets.processes import free_port

HOST = "127.0.0.1"
USER, PASSWORD = "alerts@bank.example", "a p:ss/w@rd"


class HttpReceiver(ThreadingHTTPServer):
    """Keeps every body that is posted; answers `status`, or waits for `release` first where `hangs` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.status = 200
        self.hangs = False
        self.asked = threading.Event()
        self.release = threading.Event()
        self.taken: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://{HOST}:{self.server_address[1]}/services/T0/B0/secret"


class _Handler(BaseHTTPRequestHandler):
    server: HttpReceiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.set()
        if self.server.hangs:
            self.server.release.wait(60)
        if self.server.status < 300:
            self.server.taken.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        with contextlib.suppress(BrokenPipeError):
            self.send_response(self.server.status)
            self.send_header("content-length", "0")
            self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def http_receiver() -> Iterator[HttpReceiver]:
    """A receiver of webhooks."""
    server = HttpReceiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()


class MailReceiver:
    """
    Keeps every mail, with its envelope and whether it came over TLS and from a user who gave the password.

    `refuses` puts every mail off, `unknown` is an address that nobody has, and without `says_goodbye` the answer to the
    last command is the wrong one.
    """

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.recipients: list[list[str]] = []
        self.encrypted: list[bool] = []
        self.port = 0
        self.refuses = False
        self.unknown = ""
        self.says_goodbye = True

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address == self.unknown:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return "221 Bye" if self.says_goodbye else "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refuses:
            return "451 try again later"
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        self.recipients.append(list(envelope.rcpt_tos))
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 OK"


def _authenticated(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    given = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == (USER, PASSWORD)
    return AuthResult(success=given, handled=False)


@contextlib.contextmanager
def mail_receiver(*, tls: ssl.SSLContext | None = None, starttls: bool = False) -> Iterator[MailReceiver]:
    """A mail server: in clear, with STARTTLS and a login that it insists on, or with TLS from the first byte."""
    receiver = MailReceiver()
    receiver.port = free_port(HOST)
    options: dict[str, Any] = {}
    if starttls:
        options = {"tls_context": tls, "require_starttls": True}
        options |= {"authenticator": _authenticated, "auth_required": True}
    controller = Controller(
        receiver,
        hostname=HOST,
        port=receiver.port,
        ssl_context=tls if tls and not starttls else None,
        **options,
    )
    controller.start()
    try:
        yield receiver
    finally:
        controller.stop()


@contextlib.contextmanager
def dripping_server(beginning: bytes, seconds: float = 0.05) -> Iterator[int]:
    """The port of a server that answers with this and then a byte at a time, for ever; no line ever ends."""
    with socket.create_server((HOST, 0)) as server:
        ended = threading.Event()

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(beginning)
                        while not ended.wait(seconds):
                            connection.sendall(b"a")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for localhost, and the file of the authority that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "authority.pem", folder / "key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    return context, certificate_file
