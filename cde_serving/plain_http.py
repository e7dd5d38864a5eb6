"""HTTP/1.1 as it is written: no other protocol, no header behind a body, no head without end, no client without end."""

import httptools
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 * 1024  # bytes; of a head that ends sooner, the service itself says what is too much
LEAVING_SECONDS = 12.0  # for a client to take its answer once the service ends: nine until it begins, three to read


def speak_plain_http() -> None:
    """
    Let the uvicorn of this process read requests with `PlainHttp`, and open no WebSocket.

    BentoML builds uvicorn's `Config` itself and passes neither `http` nor `ws`, so that "auto" is what counts.
    """
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{PlainHttp.__name__}"
    uvicorn.config.WS_PROTOCOLS["auto"] = uvicorn.config.WS_PROTOCOLS["none"]


class PlainHttp(HttpToolsProtocol):
    """
    uvicorn's reading of requests, without what lets anybody who has no key harm the process.

    A server may ignore an `Upgrade` (RFC 9110, section 7.8); some offer HTTP/2 with every request.
    uvicorn opens a WebSocket, which it never answers if the request was no GET and which breaks its shutdown. Of a
    request that offers anything else it drops the body, and takes one that comes later for the next request. Here the
    head is read once more without the offer, and then what follows it.

    Fields of a trailer are dropped (RFC 9110, section 6.5.1): uvicorn adds them to the headers, where they would count
    as credentials or idempotency keys that no proxy has seen. uvicorn keeps a head in memory for as long as it grows,
    and waits without end for a client that does not take its answer: one ends at `LARGEST_HEAD`, the other at
    `LEAVING_SECONDS`.
    """

    _unfinished = 0  # bytes that came since a head began or ended or a part of a body came

    def _should_upgrade(self) -> bool:
        # True keeps uvicorn from beginning a request at a head with an offer, which `_read` reads once more.
        return self.scope["method"] != "CONNECT"

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._unfinished = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self._unfinished = 0
        super().on_headers_complete()
        self.headers = []  # the request keeps its list, a trailer gets this one

    def on_body(self, body: bytes) -> None:
        """Take in a part of a body."""
        self._unfinished = 0
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Read what came over the connection."""
        self._unset_keepalive_if_required()
        self._unfinished += len(data)
        try:
            self._read(data)
        except httptools.HttpParserError:
            told = "Invalid HTTP request received."
            self.logger.warning(told)
            self.send_400_response(told)
        else:
            if self._unfinished > LARGEST_HEAD:
                self._refuse_head()

    def shutdown(self) -> None:
        """End the connection once its answer is taken, or when time is over."""
        super().shutdown()
        self.loop.call_later(LEAVING_SECONDS, self.transport.abort)

    def _refuse_head(self) -> None:
        told = f"A head has at most {LARGEST_HEAD} bytes."
        self.logger.warning(told)
        if self.cycle is None or self.cycle.response_complete:
            fields = f"content-type: text/plain\r\ncontent-length: {len(told)}\r\nconnection: close"
            self.transport.write(f"HTTP/1.1 431 Request Header Fields Too Large\r\n{fields}\r\n\r\n{told}".encode())
        self.transport.close()

    def _read(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                rest = memoryview(data)[stopped.args[0] :]
            else:
                return
            if self.scope["method"] == "CONNECT":
                self.cycle.keep_alive = False  # what follows is for another host, and no request to this one
                return
            head = self._head_without_offer()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            self.parser.feed_data(head)
            data = rest

    def _head_without_offer(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self.scope["method"].encode(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % field for field in self.scope["headers"] if field[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])
