"""What a field would be called that holds an attribute by which the law forbids to decide."""

import re

# Age is not among them (12 CFR 1002.6(b)(2)).
PROTECTED_WORDS = frozenset(
    ("sex", "gender", "race", "colour", "color", "caste", "tribe", "religion", "ethnicity", "ethnic", "nationality")
) | {"national_origin", "marital_status", "disability", "sexual_orientation", "political_opinion", "trade_union"}


def is_named(name: str, words: frozenset[str]) -> bool:
    """Whether a field's name holds one of some words, each of which may be several joined by `_`."""
    parts = re.split(r"[._ ]", name.lower())
    joined = {"_".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    return bool(joined & words)
