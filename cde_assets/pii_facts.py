"""Facts about personal values outside the decision log: what a scan finds, and whether it would find what is there."""

import gzip
import json
import sqlite3
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from cde_assets.pii_scan import SHORTEST, Hit, Scanner, forms_of
from cde_domain.application import ColumnSpec, Pii, columns_of
from cde_domain.governance.facts import Fact, counted
from cde_domain.portfolio import Portfolio
from cde_serving.records.record import Record

ARTEFACT = "pii_scan.json"
LONG_NUMBER = 8  # digits and point; shorter ones are found by chance
LONG_TEXT = 12

# Where a lender's tables of people are declared to be, below CDE_HOME.
DECLARED = {
    "**/*.parquet": "the loan book, features, batch scores: tables of people, which erasing drops rows from",
    "*/batch/applications/*": "the lender's own lists of applications to score",
    "demo/decision.json": "the answer that the demo was asked to write down",
}


def pii_facts(home: Path, portfolio: Portfolio, decided: Iterable[Record]) -> tuple[list[Fact], list[Hit]]:
    """Whether values of applicants stand in any log, database, report or model below a home, and where."""
    recall = counted(ARTEFACT, {"canary_recall_of_scanner": canary_recall()})
    values = sorted({value for record in decided for value in personal_values(portfolio, record)})
    if not values:
        return recall, []
    hits = Scanner(values).of_files(home, DECLARED)
    return recall + counted(ARTEFACT, {"pii_hits_in_logs_reports_models": len(hits)}), hits


def personal_values(portfolio: Portfolio, record: Record) -> Iterator[tuple[str, str]]:
    """What in an application points to a person and stands nowhere else by chance, as most dates and amounts do."""
    request = json.loads(record.payload.request)
    for column in columns_of(portfolio.application):
        value = _at(request, column)
        if value is None or value == _at(portfolio.example, column):  # the made-up applicant's travel with the code
            continue
        if isinstance(value, float) and value % 1 and len(repr(value)) >= LONG_NUMBER:
            yield column.name, repr(value)
        elif isinstance(value, str) and len(value.encode()) >= _LONG_ENOUGH.get((column.pii, column.kind), sys.maxsize):
            yield column.name, value


_LONG_ENOUGH = {
    (Pii.DIRECT, "text"): SHORTEST,
    (Pii.DIRECT, "date"): SHORTEST,
    (Pii.INDIRECT, "text"): LONG_TEXT,
}


def _at(request: Any, column: ColumnSpec) -> Any:
    for part in column.path:
        request = request.get(part) if isinstance(request, Mapping) else None
    return request


def canary_recall() -> float:
    """The share of planted values that the scan finds: every form, in a log, a database and compressed files."""
    planted = found = 0
    for value in (("canary", "Canary-Jane.Doe+4711/5"), ("canary", "61234.56789")):
        forms = forms_of(value[1])
        with tempfile.TemporaryDirectory(prefix="canaries-") as name:
            files = _plant(Path(name), list(forms.values()))
            hits = Scanner([value]).of_files(Path(name), {})
        planted += len(files) * len(forms)
        found += len({(hit.file, hit.form) for hit in hits})
    return found / planted


def _plant(folder: Path, canaries: list[bytes]) -> set[str]:
    (folder / "plain.log").write_bytes(b"\n".join(canaries))
    (folder / "old.log.gz").write_bytes(gzip.compress(b"\n".join(canaries)))
    with zipfile.ZipFile(folder / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, canary in enumerate(canaries):
            archive.writestr(f"{number}", canary)
    with closing(sqlite3.connect(folder / "events.db")) as database, database:
        database.execute("CREATE TABLE events (body)")
        rows = [(b"z" * 5000 + canary + b"z" * 5000,) for canary in canaries]
        database.executemany("INSERT INTO events VALUES (?)", rows)
    return {path.name for path in folder.iterdir()}
