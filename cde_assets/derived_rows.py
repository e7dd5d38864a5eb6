"""Tables made from decisions (batch scores, decisions, outcomes): a customer who is erased is in none of them."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cde_serving.records.record import DEFAULT_TENANT

# What a model was made of and judged by is signed as it was: it belongs to the loan book, not to decisions.
SIGNED = ("bundles", "evidence", "models")

TokenOf = Callable[[str, str], str]  # of a tenant's customer id


def drop_customer_rows(folder: Path, customers: Collection[str], token_of: TokenOf) -> dict[Path, int]:
    """
    Take the rows of customers, given by their tokens, out of every Parquet file below a portfolio's folder.

    A file names customers by token in a column `customer` or by id in `customer_id`; a column `tenant` says whose.
    Each file is replaced as a whole, or left as it is. Returns how many rows each changed file lost.
    """
    lost = {}
    for path in sorted(folder.rglob("*.parquet")) if customers else ():
        if path.relative_to(folder).parts[0] in SIGNED:
            continue
        if count := drop_rows_from(path, customers, token_of):
            lost[path] = count
    return lost


def drop_rows_from(path: Path, customers: Collection[str], token_of: TokenOf) -> int:
    """Take the rows of customers out of one Parquet file, as `drop_customer_rows` does; return how many."""
    names = pq.read_schema(path).names
    if "customer" not in names and "customer_id" not in names:
        return 0
    table = pq.ParquetFile(path).read()
    gone = _of_customers(table, customers, token_of)
    if not (count := int(pc.sum(gone).as_py() or 0)):
        return 0
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        pq.write_table(table.filter(pc.invert(gone)), unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _of_customers(table: pa.Table, customers: Collection[str], token_of: TokenOf) -> pa.Array:
    if "customer" in table.column_names:
        return pc.is_in(table["customer"].combine_chunks(), pa.array(list(customers), table["customer"].type))
    ids = table["customer_id"].to_pylist()
    tenants = table["tenant"].to_pylist() if "tenant" in table.column_names else [DEFAULT_TENANT] * len(ids)
    wanted = set(customers)
    known = {one: one[1] is not None and token_of(*one) in wanted for one in set(zip(tenants, ids, strict=True))}
    return pa.array([known[one] for one in zip(tenants, ids, strict=True)], pa.bool_())
