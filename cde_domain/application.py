"""An application for credit: how its pydantic model becomes columns, and rows become requests.

A portfolio writes its application once, as a strict pydantic model. The same model validates a request,
describes a row of the loan book and fills the data dictionary.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Pii(StrEnum):
    """How far a value identifies a person."""

    NONE = "none"
    INDIRECT = "indirect"
    DIRECT = "direct"


@dataclass(frozen=True)
class Actionable:
    """
    How an applicant can change a field before they apply again: all that recourse may suggest.

    Numbers move in a `direction` to multiples of `step`, no further than `limit` if there is one. A category moves to
    one of `to`, the nearest first, never back in that order. `advice` is an imperative: "Lower the amount of the loan".
    A field without this is never suggested: who the applicant is, and the past, cannot be changed.
    """

    advice: str
    direction: Literal["lower", "higher", "any"] = "any"
    step: float = 1.0
    limit: float | None = None
    to: tuple[str, ...] = ()


class Record(BaseModel):
    """A part of an application: strict types, finite numbers, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Application(Record):
    """Base of every portfolio's application."""

    customer_id: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9._:\-]+$",
        description="The lender's identifier of the customer",
        json_schema_extra={"pii": Pii.DIRECT, "purpose": "identify the customer", "source": "lender"},
    )


def field(
    description: str,
    *,
    purpose: str,
    source: str = "applicant",
    unit: str | None = None,
    pii: Pii = Pii.INDIRECT,
    actionable: Actionable | None = None,
    **constraints: Any,
) -> Any:
    """
    A field of an application with what governance must know of it, and whether the applicant can change it.

    `constraints` are pydantic's: `ge`, `le`, `default`, `max_length`, ... A field without `default` is required.
    """
    extra: dict[str, Any] = {"unit": unit, "pii": pii, "purpose": purpose, "source": source}
    if actionable is not None:
        extra["actionable"] = asdict(actionable)
    return Field(description=description, json_schema_extra=extra, **constraints)


Kind = Literal["number", "category", "flag", "date", "text", "list"]


@dataclass(frozen=True)
class ColumnSpec:
    """One column of the loan book, named by its path in the request (`credit_history.score`)."""

    name: str
    kind: Kind
    required: bool
    description: str = ""
    unit: str | None = None
    pii: Pii = Pii.INDIRECT
    purpose: str = ""
    source: str = ""
    integer: bool = False
    categories: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    pattern: str | None = None
    min_length: int = 0
    max_length: int | None = None
    actionable: Actionable | None = None
    items: tuple["ColumnSpec", ...] = ()

    @property
    def path(self) -> tuple[str, ...]:
        """The attribute names that lead to the value."""
        return tuple(self.name.split("."))


def columns_of(model: type[BaseModel]) -> tuple[ColumnSpec, ...]:
    """The columns of an application model in the order of its fields, nested records flattened."""
    return tuple(_walk(model, prefix="", optional=False))


def _walk(model: type[BaseModel], *, prefix: str, optional: bool) -> Iterator[ColumnSpec]:
    for name, info in model.model_fields.items():
        annotation, nullable = _without_none(info.annotation)
        path = f"{prefix}{name}"
        missing_allowed = optional or nullable or not info.is_required()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _walk(annotation, prefix=f"{path}.", optional=missing_allowed)
        else:
            yield _column(path, annotation, info, required=not missing_allowed)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        options = [option for option in get_args(annotation) if option is not type(None)]
        if len(options) == 1:
            return options[0], len(options) < len(get_args(annotation))
    return annotation, False


def _column(path: str, annotation: Any, info: FieldInfo, *, required: bool) -> ColumnSpec:
    extra: Mapping[str, Any] = info.json_schema_extra if isinstance(info.json_schema_extra, Mapping) else {}
    common: dict[str, Any] = {
        "name": path,
        "required": required,
        "description": info.description or "",
        **{key: value for key, value in extra.items() if key in ("unit", "pii", "purpose", "source")},
        **_constraints(info),
    }
    actionable = Actionable(**extra["actionable"]) if "actionable" in extra else None
    if get_origin(annotation) is Literal:
        categories = tuple(get_args(annotation))
        if actionable is not None and (not actionable.to or set(actionable.to) - set(categories)):
            raise TypeError(f"{path}: an actionable category needs `to`, some of {', '.join(categories)}")
        return ColumnSpec(kind="category", categories=categories, actionable=actionable, **common)
    if get_origin(annotation) is list:
        if "actionable" in extra:
            raise TypeError(f"{path}: only numbers and categories can be actionable, and this is a list")
        (item,) = get_args(annotation)
        return ColumnSpec(kind="list", items=columns_of(item), **common)
    kinds: dict[Any, Kind] = {float: "number", int: "number", bool: "flag", str: "text", date: "date"}
    if annotation not in kinds:
        message = f"{path}: an application field cannot be {annotation!r}; use number, bool, date, str, Literal or list"
        raise TypeError(message)
    if actionable is not None:
        _check_number(path, kinds[annotation], actionable, common)
    if annotation is int and common.get("at_most") is None and common.get("below") is None:
        raise TypeError(f"{path}: a whole number needs an upper bound (`le`), or it may not fit any column")
    return ColumnSpec(kind=kinds[annotation], integer=annotation is int, actionable=actionable, **common)


def _check_number(path: str, kind: Kind, actionable: Actionable, common: Mapping[str, Any]) -> None:
    if kind != "number":
        raise TypeError(f"{path}: only numbers and categories can be actionable, and this is a {kind}")
    if actionable.to or not actionable.step > 0:
        raise TypeError(f"{path}: an actionable number has a positive `step` and no `to`")
    for direction, bounds in (("lower", ("at_least", "above")), ("higher", ("at_most", "below"))):
        if actionable.direction in (direction, "any") and not any(common.get(bound) is not None for bound in bounds):
            raise TypeError(f"{path}: moving it {direction} needs a bound of the field there")


def _constraints(info: FieldInfo) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for bound in info.metadata:
        match bound:
            case annotated_types.Ge(ge=limit):
                found["at_least"] = limit
            case annotated_types.Gt(gt=limit):
                found["above"] = limit
            case annotated_types.Le(le=limit):
                found["at_most"] = limit
            case annotated_types.Lt(lt=limit):
                found["below"] = limit
            case annotated_types.MinLen(min_length=length):
                found["min_length"] = length
            case annotated_types.MaxLen(max_length=length):
                found["max_length"] = length
            case _ if (pattern := getattr(bound, "pattern", None)) is not None:
                found["pattern"] = pattern
    return found


def request_of(row: Mapping[str, Any], columns: tuple[ColumnSpec, ...]) -> dict[str, Any]:
    """The request body that a row of the loan book (by dotted column name) stands for, missing values left out."""
    request: dict[str, Any] = {}
    for column in columns:
        value = _json_value(row.get(column.name), column)
        if value is None:
            continue
        *parents, leaf = column.path
        target = request
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = value
    return request


def _json_value(value: Any, column: ColumnSpec) -> Any:
    if column.kind == "list":
        if value is None or (isinstance(value, float) and value != value):
            return None
        return [request_of(item, column.items) for item in value]
    if value is None or value != value:  # NaN and NaT differ from themselves
        return None
    if column.kind == "date":
        return value.date().isoformat() if isinstance(value, datetime) else value.isoformat()
    if column.kind == "number":
        return int(value) if column.integer else float(value)
    return bool(value) if column.kind == "flag" else str(value)
