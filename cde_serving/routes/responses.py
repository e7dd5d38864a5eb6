"""What every route needs: bodies read within a limit, JSON written, nothing cached."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Send

_JSON_TYPE = re.compile(r"application/(?:json|[\w.\-]+\+json)\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)


def is_json(content_type: str) -> bool:
    """Whether a content type is JSON."""
    return _JSON_TYPE.fullmatch(content_type) is not None


def refused_media(headers: Iterable[tuple[bytes, bytes]], what: str) -> Response | None:
    """The refusal of a body that is not said to be JSON, or that is compressed; None if it can be read."""
    content_type = b""
    for name, value in headers:
        if name == b"content-type":
            content_type = value
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            detail = f"Send the {what} without Content-Encoding: nothing is decompressed"
            return json_response(415, {"detail": detail}, {"accept-encoding": "identity"})
    if is_json(content_type.decode("latin-1")):
        return None
    return json_response(415, {"detail": f"Send the {what} as application/json"})


async def read_body(receive: Receive, announced: bytes, limit: int) -> bytes | None:
    """
    The request's body, or None as soon as it is known to be too large.

    Raises:
        ClientDisconnect: the sender left before the end; what came of it is nobody's request.
    """
    if announced.isdigit() and int(announced[:20]) > limit:
        return None
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            break
    return b"".join(parts)


def json_response(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of JSON."""
    return raw_response(status, msgspec.json.encode(content), headers)


def raw_response(status: int, content: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of bytes that are JSON already."""
    return Response(content, status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json")


async def send_decision(send: Send, answer: bytes) -> None:
    """Send the answer that is sent most, without a `Response` made for it."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
