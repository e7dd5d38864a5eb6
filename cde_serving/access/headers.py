"""Headers of every answer: nothing is guessed, framed, cached, run or told to another site."""

from collections.abc import Iterable

Header = tuple[bytes, bytes]

# For what a route does not say itself. HTTPS, and with it Strict-Transport-Security, belongs to the proxy in front.
SECURITY: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def secured(headers: Iterable[Header]) -> list[Header]:
    """The headers of an answer with those of every answer, unless it has its own."""
    own = list(headers)
    named = {name for name, _ in own}
    own.extend(header for header in SECURITY if header[0] not in named)
    return own
