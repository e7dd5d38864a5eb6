"""Tables as Parquet and reports as JSON, each with its SHA-256 in the event log and verified when read back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cde_domain.digests import file_digest, write_json
from cde_domain.loan_book import parquet_frame


class ArtefactIOManager(dg.ConfigurableIOManager):
    """
    Keeps what assets return below `folder`: tables (or iterators of their chunks) as Parquet, dictionaries as JSON.

    A file that is no longer the one its latest materialisation recorded is refused when it is read.
    """

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an asset's value; the file is replaced in one step, and only by a complete one."""
        target = Path(self.folder).joinpath(*context.asset_key.path)
        target = target.with_name(target.name + (".json" if isinstance(obj, dict) else ".parquet"))
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.unfinished")
        if isinstance(obj, dict):
            try:
                write_json(unfinished, obj)
            except ValueError as error:
                name = context.asset_key.to_user_string()
                raise dg.Failure(f"{name} cannot be written as JSON: {error}", allow_retries=False) from error
        else:
            try:
                context.add_output_metadata(_write_parquet(unfinished, obj))
            except pa.ArrowException:  # which would quote a value of another type than its column
                name = context.asset_key.path[-1]
                raise dg.Failure(
                    f"{name} cannot be written as a table: a column mixes types", allow_retries=False
                ) from None
        unfinished.replace(target)
        context.add_output_metadata({"path": dg.MetadataValue.path(str(target)), "sha256": file_digest(target)})

    def load_input(self, context: dg.InputContext) -> Any:
        """
        Read the latest value of an asset.

        Raises:
            dagster.Failure: the asset was never materialised, or its file was changed since.
        """
        name = context.asset_key.to_user_string()
        event = context.instance.get_latest_materialization_event(context.asset_key)
        if event is None or event.asset_materialization is None:
            raise dg.Failure(f"{name} has not been materialised yet", allow_retries=False)
        metadata = event.asset_materialization.metadata
        written = Path(str(metadata["path"].value))
        path = (
            Path(self.folder).joinpath(*context.asset_key.path).with_suffix(written.suffix)
        )  # the home may have moved
        if not path.is_file() or file_digest(path) != metadata["sha256"].value:
            raise dg.Failure(f"{path.name} is not the file that {name} was materialised as", allow_retries=False)
        return json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else parquet_frame(path)


def _write_parquet(path: Path, table: pd.DataFrame | Iterator[pd.DataFrame]) -> dict[str, Any]:
    chunks = iter([table]) if isinstance(table, pd.DataFrame) else table
    first = next(chunks)
    descriptions = first.attrs.get("descriptions", {})
    first.attrs = {}
    head = pa.Table.from_pandas(first, preserve_index=False)
    rows = 0
    with pq.ParquetWriter(path, head.schema) as writer:
        while first is not None:
            writer.write_table(pa.Table.from_pandas(first, schema=head.schema, preserve_index=False))
            rows += len(first)
            first = next(chunks, None)
    schema = dg.TableSchema(
        [dg.TableColumn(field.name, str(field.type), description=descriptions.get(field.name)) for field in head.schema]
    )
    return {"dagster/row_count": rows, "dagster/column_schema": schema}


def recorded_digest(instance: dg.DagsterInstance, key: dg.AssetKey) -> str:
    """The SHA-256 of an asset's file as its latest materialisation recorded it."""
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        raise dg.Failure(f"{key.to_user_string()} has not been materialised yet", allow_retries=False)
    return str(event.asset_materialization.metadata["sha256"].value)
