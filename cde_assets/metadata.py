"""What people see in the UI: owners, tables, pictures."""

import base64
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from cde_domain.application import columns_of
from cde_domain.loan_book import PROTECTED_PREFIX, Problem
from cde_domain.portfolio import Portfolio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWNERS = ["team:credit-risk"]


def problem_table(problems: Iterable[Problem]) -> dg.TableMetadataValue:
    """Problems of a loan book as a table: column, what, how many, example rows; never values."""
    records = [
        dg.TableRecord({"column": p.column, "problem": p.what, "count": p.count, "rows": ", ".join(map(str, p.rows))})
        for p in problems
    ]
    columns = [
        dg.TableColumn("column"),
        dg.TableColumn("problem"),
        dg.TableColumn("count", "int"),
        dg.TableColumn("rows"),
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    """Rows of plain values as a table; floats to four decimals, lists as text."""

    def cell(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4)
        return value if value is None or isinstance(value, str | int | bool) else str(value)

    records = [dg.TableRecord({key: cell(value) for key, value in row.items()}) for row in rows]
    return dg.MetadataValue.table(records, dg.TableSchema([dg.TableColumn(key) for key in rows[0]]) if rows else None)


def describe_columns(frame: pd.DataFrame, portfolio: Portfolio) -> pd.DataFrame:
    """Give a table's columns their descriptions for the UI's column schema."""
    descriptions = {
        "application_id": "Identifier of the application",
        "applied_at": "Date of the application",
        "repaid": "1 repaid, 0 not, empty while unknown",
        "outcome_known_at": "When the outcome became known",
    }
    for spec in columns_of(portfolio.application):
        descriptions[spec.name] = f"{spec.description} ({spec.unit})" if spec.unit else spec.description
    for feature in portfolio.features:
        descriptions.setdefault(
            feature.name, f"{feature.description} ({feature.unit})" if feature.unit else feature.description
        )
    for attribute in portfolio.protected:
        descriptions[PROTECTED_PREFIX + attribute.name] = f"For fairness analysis only ({attribute.use})"
    frame.attrs["descriptions"] = descriptions
    return frame


def picture(figure: "Figure", title: str) -> dg.MarkdownMetadataValue:
    """A small figure inside the event log, as an image in Markdown."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{png_base64(figure)})")


def png_base64(figure: "Figure", *, dpi: int = 70) -> str:
    """A figure as a small PNG in base64."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
