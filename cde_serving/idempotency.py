"""What can be an idempotency key."""

import re

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class BadKeyError(ValueError):
    """A text that cannot be an idempotency key."""


def is_key(key: str) -> bool:
    """Whether a text can be an idempotency key: 1 to 255 visible ASCII characters."""
    return _IDEMPOTENCY_KEY.fullmatch(key) is not None
