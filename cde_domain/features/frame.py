"""The loan book as columns: the bulk side of the one feature code."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cde_domain.application import ColumnSpec
from cde_domain.features.columns import Array, Columns, Nested


def arrow_type(spec: ColumnSpec) -> pa.DataType:
    """The Arrow type of a column's values."""
    if spec.kind == "list":
        return pa.list_(pa.struct([(item.name, arrow_type(item)) for item in spec.items]))
    types = {"number": pa.float64(), "flag": pa.bool_(), "date": pa.date32()}
    return types.get(spec.kind, pa.string())


def columns_of_frame(frame: pd.DataFrame, specs: tuple[ColumnSpec, ...]) -> Columns:
    """The rows of a loan book (dotted column names, lists in Arrow type) as columns."""
    values: dict[str, Array | Nested] = {"applied_at": _days(frame["applied_at"])}
    for spec in specs:
        if spec.kind == "list":
            values[spec.name] = _nested(frame[spec.name], spec)
        elif spec.kind != "text":
            values[spec.name] = _flat(frame[spec.name], spec)
    return Columns(rows=len(frame), values=values)


def _flat(series: pd.Series, spec: ColumnSpec) -> Array:
    if spec.kind == "category":
        codes = pd.Categorical(series, categories=list(spec.categories)).codes.astype(np.float64)
        codes[codes < 0] = np.nan
        return codes
    if spec.kind == "date":
        return _days(series)
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _days(series: pd.Series) -> Array:
    days = pd.to_datetime(series).to_numpy().astype("datetime64[D]")
    numbers = days.astype(np.float64)
    numbers[np.isnat(days)] = np.nan
    return numbers


def _nested(series: pd.Series, spec: ColumnSpec) -> Nested:
    lists: Any = pa.array(series, type=arrow_type(spec), from_pandas=True)
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    known = lists.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    items = lists.flatten()
    return Nested(
        fields={item.name: _item_values(items.field(item.name), item) for item in spec.items if item.kind != "text"},
        categories={item.name: item.categories for item in spec.items},
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        known=known,
    )


def _item_values(values: Any, spec: ColumnSpec) -> Array:
    if spec.kind == "category":
        values = pc.index_in(values, value_set=pa.array(spec.categories))
    elif spec.kind == "date":
        values = values.cast(pa.int32())
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
