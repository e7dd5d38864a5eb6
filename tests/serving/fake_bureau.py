"""A credit bureau on loopback with faults on demand; `python -m tests.serving.fake_bureau PORT [FAULT]` runs one.

A running one is told its fault with `curl -X PUT localhost:PORT/fault -d "time-out"`; `none` ends it.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPORT = {"score": 701.0, "accounts": [{"balance": 900.0}]}

FAULTS = (
    "none",
    "time-out",
    "slow drip",
    "error 500",
    "error 503",
    "error 404",
    "cut off",
    "no HTTP",
    "garbage",
    "not JSON",
    "out of range",
    "wrong type",
    "unknown field",
    "NaN",
    "control character",
    "endless",
    "a list",
    "redirect",
)

BODIES: dict[str, bytes] = {
    "garbage": b"\xff\xfe\x00{{{",
    "not JSON": b"<html>Service temporarily unavailable</html>",
    "out of range": json.dumps({**REPORT, "score": 9000.0}).encode(),
    "wrong type": json.dumps({**REPORT, "score": "excellent"}).encode(),
    "unknown field": json.dumps({**REPORT, "grade": "A"}).encode(),
    "NaN": b'{"score": NaN, "accounts": []}',
    "control character": b'{"score": 701.0, "accounts": [{"balance": 1.0, "\\u0000": 1}]}',
    "a list": b"[701.0]",
}


class FakeBureau(ThreadingHTTPServer):
    """Answers every lookup with one report, or as its `fault` says; first `failures` get 500 and `hanging` nothing."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0, report: Any = None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.fault = "none"
        self.failures = 0
        self.hanging = 0
        self.seconds = 0.0  # that each answer takes
        self.report = REPORT if report is None else report
        self.lookups: list[dict[str, Any]] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        """Where to ask."""
        return f"http://127.0.0.1:{self.server_port}/reports"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not wait is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeBureau

    def do_POST(self) -> None:
        """A lookup."""
        self.server.lookups.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        if self.server.failures > 0:
            self.server.failures -= 1
            return self._answer(500, b"{}")
        if self.server.hanging > 0:
            self.server.hanging -= 1
            return self._time_out()
        time.sleep(self.server.seconds)
        fault = self.server.fault
        if fault.startswith("error "):
            return self._answer(int(fault.removeprefix("error ")), b'{"detail": "no"}')
        if fault in BODIES:
            return self._answer(200, BODIES[fault])
        return {
            "time-out": self._time_out,
            "slow drip": self._drip,
            "cut off": self._cut_off,
            "no HTTP": lambda: self.wfile.write(b"+OK hello\r\n"),
            "endless": self._endless,
            "redirect": lambda: self._answer(302, b"", location="/elsewhere"),
        }.get(fault, lambda: self._answer(200, json.dumps(self.server.report).encode()))()

    def do_PUT(self) -> None:
        """Another fault."""
        self.server.fault = self.rfile.read(int(self.headers["content-length"])).decode()
        self._answer(200 if self.server.fault in FAULTS else 422, b"")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _time_out(self) -> None:
        self.server.stopping.wait(30)
        self.close_connection = True

    def _drip(self) -> None:
        body = json.dumps(self.server.report).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        for byte in body:
            if self.server.stopping.wait(0.05):
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
        self.close_connection = True

    def _cut_off(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b'{"score": 7')
        self.close_connection = True

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.stopping.is_set():
                self.wfile.write(b" " * 65536)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@contextlib.contextmanager
def running_bureau(report: Any = None) -> Iterator[FakeBureau]:
    """A bureau on a free port."""
    bureau = FakeBureau(report=report)
    thread = threading.Thread(target=bureau.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield bureau
    finally:
        bureau.stopping.set()
        bureau.shutdown()
        bureau.server_close()
        thread.join()


def main() -> None:
    """Run one until Ctrl-C, with the reports of personal loans."""
    bureau = FakeBureau(int(sys.argv[1]), {"score": 701.0, "accounts": [{"type": "credit_card", "status": "active"}]})
    bureau.fault = sys.argv[2] if len(sys.argv) > 2 else "none"
    print(f"CDE_BUREAU_URL={bureau.url}  fault: {bureau.fault} (one of: {', '.join(FAULTS)})", flush=True)
    threading.Thread(target=bureau.serve_forever, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)


if __name__ == "__main__":
    main()
