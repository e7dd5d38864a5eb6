"""Recorded requests as rows of a loan book: do training's features still have the bits that decided?"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from cde_domain.application import ColumnSpec, columns_of
from cde_domain.features.feature import Feature, feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.portfolio import Portfolio

Array = NDArray[np.float64]


def book_of_requests(
    application: type[BaseModel], requests: Sequence[bytes], applied_on: Sequence[date]
) -> pd.DataFrame:
    """
    Recorded requests in the loan book's form: dotted column names, lists of records, `applied_at`.

    Raises:
        pydantic.ValidationError: a request is none of this application.
    """
    applications = [application.model_validate_json(request) for request in requests]
    columns = {
        spec.name: _column([_value(one, spec.path) for one in applications], spec) for spec in columns_of(application)
    }
    applied_at = np.array(applied_on, dtype="datetime64[D]").astype("datetime64[s]")
    return pd.DataFrame({"applied_at": applied_at, **columns})


def offline_matrix(portfolio: Portfolio, requests: Sequence[bytes], applied_on: Sequence[date]) -> Array:
    """
    The features of recorded requests by the code that makes the feature table, float64 of shape (rows, features).

    Raises:
        pydantic.ValidationError: a request is none of this portfolio.
    """
    book = book_of_requests(portfolio.application, requests, applied_on)
    return feature_matrix(portfolio.features, columns_of_frame(book, columns_of(portfolio.application)))


def differing(features: Sequence[Feature], one: Array, other: Array) -> Mapping[str, int]:
    """In how many rows each feature has other bits in one matrix than in another; unknown is unknown in any bits."""
    unequal = one.view(np.uint64) != other.view(np.uint64)
    unequal &= ~(np.isnan(one) & np.isnan(other))
    counts = unequal.sum(axis=0).tolist()
    return {feature.name: count for feature, count in zip(features, counts, strict=True) if count}


def _value(application: BaseModel, path: Sequence[str]) -> Any:
    value: Any = application
    for name in path:
        value = None if value is None else getattr(value, name)
    return value


def _column(values: list[Any], spec: ColumnSpec) -> pd.Series:
    if spec.kind == "list":
        lists = [None if items is None else [item.model_dump() for item in items] for items in values]
        return pd.Series(lists, dtype=object)
    if spec.kind in ("number", "flag"):
        return pd.Series(values, dtype=np.float64)
    if spec.kind == "date":
        return pd.Series(np.array(values, dtype="datetime64[D]").astype("datetime64[s]"))
    return pd.Series(values, dtype=object)
