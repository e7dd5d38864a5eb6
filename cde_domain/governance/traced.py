"""Values that know the artefact they were read from, so that a template can print no number of its own making.

`traced` wraps a JSON value. What comes out of the filters here still knows its source; `Prints` takes down what a
template prints and refuses a number without one. Sources are JSON pointers (RFC 6901).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MISSING = "\u2013"
_DIGIT = re.compile(r"\d")
_CODE = re.compile(r"(`[^`\n]+`)")
_MARKUP = re.compile(r"([\\<>|\[\]*`])")
_SPACE = re.compile(r"\s+")
_BLOCK = re.compile(r"^([#>+\-])(?=\s)")


class UntracedNumberError(ValueError):
    """A number that a template made up, or lost the source of."""


class Text(str):
    """A text with its source."""

    source: str

    @classmethod
    def of(cls, text: str, source: str) -> "Text":
        """A text read from, or made of, the value at a source."""
        made = cls(text)
        made.source = source
        return made


class Verbatim(str):
    """Markup that is printed as it is: a picture."""


class _Count(int):
    source: str


class _Number(float):
    source: str


class _Rows(list[Any]):
    source: str


class _Fields(dict[str, Any]):
    source: str


def traced(value: Any, source: str = "") -> Any:
    """A JSON value with the JSON pointer of every part of it; true, false and null stay as they are."""
    made: Any
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        made = _Fields(
            {Text.of(str(key), f"{source}#"): traced(part, f"{source}/{_token(key)}") for key, part in value.items()}
        )
    elif isinstance(value, list | tuple):
        made = _Rows(traced(part, f"{source}/{place}") for place, part in enumerate(value))
    elif isinstance(value, int):
        made = _Count(value)
    elif isinstance(value, float):
        made = _Number(value)
    else:
        made = Text(value)
    made.source = source
    return made


def _token(key: Any) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def resolve(value: Any, source: str) -> Any:
    """
    What a source points at in a plain JSON value.

    Raises:
        KeyError: it points at nothing.
    """
    for token in source.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(name)] if isinstance(value, list) else value[name]
        except (IndexError, TypeError, ValueError) as error:
            raise KeyError(source) from error
    return value


class Prints:
    """What one rendering printed: `numbers` holds every text with a digit in it, with its source."""

    def __init__(self) -> None:
        self.numbers: list[tuple[str, str]] = []

    def __call__(self, value: Any) -> Any:
        """
        The Markdown of a value: a text from an artefact can be no markup in it.

        Raises:
            UntracedNumberError: the value has a digit in it and no source.
        """
        if isinstance(value, Verbatim):
            return value
        if not isinstance(value, str | int | float | list | dict | None):
            value = str(value)  # Jinja's own: nothing after a condition that is false, or a name that nobody knows
        text, source = plain(value), getattr(value, "source", None)
        if _DIGIT.search(text):
            if source is None:
                raise UntracedNumberError(f"the card would print {text!r}, which was read from no artefact")
            self.numbers.append((text, source))
        return text if source is None else escaped(text)


def plain(value: Any) -> str:
    """A value as text: four significant digits, yes and no, and a dash for nothing."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{float(value):.4g}"
    return str(value)


def escaped(text: str) -> str:
    """Markdown that shows just this text, in one line; code between backticks stays code."""
    line = _SPACE.sub(" ", text)
    parts = [
        part.replace("|", r"\|") if _CODE.fullmatch(part) else _MARKUP.sub(r"\\\1", part) for part in _CODE.split(line)
    ]
    return _BLOCK.sub(r"\\\1", "".join(parts))


def _source_of(values: Iterable[Any]) -> str | None:
    for value in values:
        if source := getattr(value, "source", None):
            return str(source)
        if isinstance(value, list | tuple) and (source := _source_of(value)):
            return source
    return None


def keeping(function: Callable[..., str]) -> Callable[..., Any]:
    """The filter that formats as a function does and keeps the source of what it formats."""

    def formatted(*values: Any, **options: Any) -> Any:
        text, source = function(*values, **options), _source_of(values)
        return text if source is None else Text.of(text, source)

    return formatted


def _number(value: float | None, digits: int = 3) -> str:
    return _fixed(value, f".{digits}f")


def _signed(value: float | None, digits: int = 3) -> str:
    return _fixed(value, f"+.{digits}f")


def _fixed(value: float | None, form: str) -> str:
    if value is None:
        return MISSING
    text = format(float(value), form)
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "\u2212")


def _span(interval: Iterable[float] | None, digits: int = 3) -> str:
    return "" if interval is None else f" ({' to '.join(_number(bound, digits) for bound in interval)})"


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{_fixed(100 * share, '.1f')} %"


def _p_value(probability: float | None) -> str:
    if probability is None:
        return MISSING
    return "< 0.001" if probability < 0.001 else _number(probability)


def _thousands(count: int | None) -> str:
    return MISSING if count is None else f"{count:,}"


def _joined(values: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
    return between.join(plain(value[attribute] if attribute else value) for value in values)


def _length(values: Any) -> Any:
    rows = list(values)
    count = _Count(len(rows))
    count.source = getattr(values, "source", None) or _source_of(rows) or "#"
    return count


FILTERS: Mapping[str, Callable[..., Any]] = {
    "number": keeping(_number),
    "signed": keeping(_signed),
    "span": keeping(_span),
    "percent": keeping(_percent),
    "p_value": keeping(_p_value),
    "thousands": keeping(_thousands),
    "scientific": keeping(lambda value: MISSING if value is None else f"{value:.0e}"),
    "words": keeping(lambda value: str(value).replace("_", " ")),
    "short": keeping(lambda digest: str(digest)[:12]),
    # Jinja's own, which would lose the source
    "capitalize": keeping(lambda text: str(text)[:1].upper() + str(text)[1:]),
    "format": keeping(lambda pattern, *values: str(pattern) % values),
    "join": lambda values, *arguments, **options: keeping(_joined)(
        values if hasattr(values, "source") else list(values), *arguments, **options
    ),
    "lower": keeping(lambda text: str(text).lower()),
    "upper": keeping(lambda text: str(text).upper()),
    "replace": keeping(lambda text, old, new: str(text).replace(old, new)),
    "length": _length,
    "count": _length,
}
