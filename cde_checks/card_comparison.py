"""Whether a card says what its artefacts say: form by form, and number by number."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from cde_domain.governance.card import ModelCard
from cde_domain.governance.traced import resolve

_NUMBER = re.compile(r"[+\u2212-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
SHOWN = 60


def differences(given: ModelCard, expected: ModelCard) -> Iterator[str]:
    """The first difference of each form, with its place."""
    for form in ("markdown", "html"):
        pairs = zip_longest(getattr(given, form).splitlines(), getattr(expected, form).splitlines(), fillvalue="")
        for number, (line, right) in enumerate(pairs, start=1):
            if line != right:
                yield f"{form} line {number} says {_around(line, right)}, the reports {_around(right, line)}"
                break
    if path := next(_unequal(given.data, expected.data), None):
        yield f"data{path} is not what the reports say"


def _around(line: str, other: str) -> str:
    """A line from shortly before it departs from another."""
    line, other = _PICTURE.sub("(picture)", line), _PICTURE.sub("(picture)", other)
    start = next((place for place, pair in enumerate(zip(line, other, strict=False)) if pair[0] != pair[1]), 0)
    return repr(line[max(0, start - SHOWN // 2) : start + SHOWN // 2])


def _unequal(given: Any, expected: Any, path: str = "") -> Iterator[str]:
    if isinstance(given, dict) and isinstance(expected, dict):
        for name in sorted(given.keys() | expected.keys()):
            if name not in given or name not in expected:
                yield f"{path}/{name}"
            else:
                yield from _unequal(given[name], expected[name], f"{path}/{name}")
    elif isinstance(given, list) and isinstance(expected, list) and len(given) == len(expected):
        for place, pair in enumerate(zip(given, expected, strict=True)):
            yield from _unequal(*pair, f"{path}/{place}")
    elif given != expected or type(given) is not type(expected):
        yield path


def strange_numbers(card: ModelCard, facts: Mapping[str, Any]) -> Iterator[str]:
    """Printed numbers that are not the value that they name as their source, rounded."""
    for entry in card.data.get("numbers", ()):
        printed, source = entry["printed"], entry["source"]
        try:
            value = resolve(facts, source.removesuffix("#"))
        except KeyError:
            yield f"{printed} stands nowhere: there is no {source}"
            continue
        if not agrees(printed, list(value) if source.endswith("#") else value):
            yield f"{printed} is not {source}"


def agrees(printed: str, value: Any) -> bool:
    """Whether a printed text says a value: a number rounded to its last digit, a text, or how many there are."""
    if isinstance(value, int | float):
        found = _NUMBER.findall(printed)
        if printed.startswith("<"):
            return len(found) == 1 and value < float(found[0])
        return len(found) == 1 and _rounds(found[0], 100 * value if printed.rstrip().endswith("%") else value)
    if isinstance(value, list) and printed.strip().isdigit() and not all(isinstance(part, str) for part in value):
        return True  # a count of some of them: the whole form is compared too
    if isinstance(value, list) and all(isinstance(part, int | float) for part in value):
        found = _NUMBER.findall(printed)
        return len(found) == len(value) and all(map(_rounds, found, value))
    if isinstance(value, dict) and printed.isdigit():
        return True
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return set(re.findall(r"\d+", printed)) <= set(re.findall(r"\d+", said)) or said.startswith(printed)


def _rounds(text: str, value: float) -> bool:
    number = text.replace(",", "").replace("\u2212", "-")
    mantissa, _, exponent = number.partition("e")
    digits = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - digits)
    # Rounding half to even stays within half a unit; what a binary fraction adds is far below a thousandth of it.
    return math.isclose(float(number), value, rel_tol=0, abs_tol=0.501 * unit)
