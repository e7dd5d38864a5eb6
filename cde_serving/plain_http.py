"""HTTP/1.1 as it is written: no other protocol is changed to, and what stands behind a body is no header."""

import httptools
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def speak_plain_http() -> None:
    """
    Let the uvicorn of this process read requests with `PlainHttp`, and open no WebSocket.

    BentoML builds uvicorn's `Config` itself and passes neither `http` nor `ws`, so that "auto" is what counts.
    """
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{PlainHttp.__name__}"
    uvicorn.config.WS_PROTOCOLS["auto"] = uvicorn.config.WS_PROTOCOLS["none"]


class PlainHttp(HttpToolsProtocol):
    """
    uvicorn's reading of requests, without the changes of protocol that clients offer.

    A server may ignore an `Upgrade` (RFC 9110, section 7.8); some offer HTTP/2 with every request.
    uvicorn opens a WebSocket, which it never answers if the request was no GET and which breaks its shutdown. Of a
    request that offers anything else it drops the body, and takes one that comes later for the next request. Here the
    head is read once more without the offer, and then what follows it.

    Fields of a trailer are dropped (RFC 9110, section 6.5.1): uvicorn adds them to the headers, where they would count
    as credentials or idempotency keys that no proxy has seen.
    """

    def _should_upgrade(self) -> bool:
        # True keeps uvicorn from beginning a request at a head with an offer, which `_read` reads once more.
        return self.scope["method"] != "CONNECT"

    def on_headers_complete(self) -> None:
        """Begin a request."""
        super().on_headers_complete()
        self.headers = []  # the request keeps its list, a trailer gets this one

    def data_received(self, data: bytes) -> None:
        """Read what came over the connection."""
        self._unset_keepalive_if_required()
        try:
            self._read(data)
        except httptools.HttpParserError:
            told = "Invalid HTTP request received."
            self.logger.warning(told)
            self.send_400_response(told)

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
