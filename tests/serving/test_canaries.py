"""What leaks out of a service: a real one is given unmistakable values, and everything it leaves behind is searched."""

import base64
import gzip
import json
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cde_assets.pii_scan import Hit, Scanner, forms_of
from cde_serving.records.database import open_reader
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey
from tests.serving.helpers import SCORE, Server, releases_in, start_server, wait_for
from tests.support import NAME, TinyLoans

CANARIES = {
    "customer_id": "Canary-Jane-Doe.4711",
    "annual_income": "61234.56789",
    "loan_amount": "4321.98765",
    "employed_since": "1987-11-23",
    "note": "the canary sings in \u00fcrban cages",
    "score": "654.32198",
    "balance": "1357.24689",
    "category": "canary-wedding-cake",
    "path": "Canary-in-a-path",
    "query": "canary-in-a-query",
    "header": "canary-in-a-header",
    "key": "canary-idempotency-key",
    "credential": "canary-secret-credential",
    "gender": "canary-gender",
    "reviewer": "the canary's reviewer saw the papers",
}
BODY: dict[str, Any] = {
    "customer_id": CANARIES["customer_id"],
    "annual_income": float(CANARIES["annual_income"]),
    "loan_amount": float(CANARIES["loan_amount"]),
    "loan_purpose": "car",
    "employed_since": CANARIES["employed_since"],
    "note": CANARIES["note"],
    "credit_history": {
        "score": float(CANARIES["score"]),
        "accounts": [{"balance": float(CANARIES["balance"])}],
    },
}
HEADERS = {
    "user-agent": CANARIES["header"],
    "cookie": f"session={CANARIES['credential']}",
}
FAULT = """
from cde_domain.decisions.engine import DecisionEngine
from cde_serving import scorer

decide_all, answer_to = DecisionEngine.decide_all, scorer.answer_to


def decide_or_fail(engine, applications, applied_at):
    for application in applications:
        if application.loan_purpose == "wedding":
            raise RuntimeError(f"cannot decide {application!r}")
    return decide_all(engine, applications, applied_at)


def answer_or_fail(customer_id, decision_id, applied_at, decision, *given):
    if "DECISION_FAILED" in decision.reason_codes:
        raise RuntimeError(f"cannot answer {customer_id!r}")
    return answer_to(customer_id, decision_id, applied_at, decision, *given)


DecisionEngine.decide_all, scorer.answer_to = decide_or_fail, answer_or_fail
"""


@dataclass
class Left:
    """What a service left behind: its folder, and what it answered when it did not decide."""

    folder: Path
    decided: list[httpx.Response] = field(default_factory=list)
    reviewed: list[httpx.Response] = field(default_factory=list)
    refused: list[httpx.Response] = field(default_factory=list)
    pages: list[httpx.Response] = field(default_factory=list)


def refused_requests(client: httpx.Client) -> Iterator[httpx.Response]:
    """One request of each kind that is refused, a canary in each."""

    def post(body: Any) -> httpx.Response:
        return client.post(SCORE, json=body, headers=HEADERS)

    def send(content: bytes, **headers: str) -> httpx.Response:
        return client.post(SCORE, content=content, headers={**HEADERS, "content-type": "application/json", **headers})

    whole = json.dumps(BODY).encode()
    yield post({**BODY, "annual_income": CANARIES["note"]})
    yield post({**BODY, "annual_income": -float(CANARIES["annual_income"])})
    yield post({**BODY, "loan_purpose": CANARIES["category"]})
    yield post({**BODY, "employed_since": f"{CANARIES['employed_since']}x"})
    yield post({**BODY, "customer_id": f"{CANARIES['customer_id']} with spaces"})
    yield post({**BODY, "note": CANARIES["note"] * 20})
    yield post({**BODY, "note": f"{CANARIES['note']}\u202e"})
    yield post({**BODY, "shoe_size": CANARIES["note"]})
    yield post({**BODY, "gender": CANARIES["gender"]})
    yield post([BODY])
    yield send(whole[:-1])
    yield send(whole + whole)
    yield send(whole[:-1] + b', "note": "' + CANARIES["category"].encode() + b'"}')
    yield send(whole, **{"content-type": "text/plain"})
    yield send(whole, **{"idempotency-key": f"{CANARIES['key']} {CANARIES['key']}"})
    yield send(whole + b" " * 70_000)
    yield client.get(f"/api/v1/credit/decisions/{CANARIES['path']}", headers=HEADERS)
    yield client.get(f"/{CANARIES['path']}?{CANARIES['query']}={CANARIES['query']}", headers=HEADERS)
    yield send(whole, authorization=f"Bearer {CANARIES['credential']}")
    yield send(whole, **{"x-api-key": CANARIES["credential"]})
    yield client.post(f"{SCORE}/batch", json={"applications": [BODY], CANARIES["query"]: 1}, headers=HEADERS)
    yield client.request("PUT", SCORE, content=whole, headers=HEADERS)


@pytest.fixture(scope="module")
def left(tiny: TinyLoans, bundles: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A service at its most talkative decides, refuses, fails at an application and at its database, and stops."""
    folder = tmp_path_factory.mktemp("canaries")
    (folder / "faults").mkdir()
    (folder / "faults" / "sitecustomize.py").write_text(FAULT, encoding="utf-8")
    releases_in(folder / "home" / NAME).promote(bundles[0])
    talkative = {"CDE_LOG_LEVEL": "debug", "CDE_ACCESS_LOG": "all"}
    faulty = TinyLoans(Path(f"{tiny.folder}:{folder / 'faults'}"), tiny.portfolio)
    server = start_server(faulty, folder, **talkative)
    try:
        return _used(server, folder)
    finally:
        server.kill()


def _used(server: Server, folder: Path) -> Left:
    client, left = server.client, Left(folder)
    wait_for(lambda: client.get("/ready").status_code == 200, 10)
    keyed = {**HEADERS, "idempotency-key": CANARIES["key"]}
    left.decided += [client.post(SCORE, json=BODY, headers=keyed) for _ in range(2)]
    left.decided.append(client.get("/api/v1/credit/decisions", headers=keyed))
    left.decided.append(client.post(SCORE, json={**BODY, "loan_amount": 4e6 + BODY["loan_amount"]}, headers=HEADERS))
    batch = {"applications": [BODY, {**BODY, "annual_income": CANARIES["note"]}, {**BODY, "loan_purpose": "wedding"}]}
    left.decided.append(client.post(f"{SCORE}/batch", json=batch, headers=HEADERS))
    path = f"/api/v1/credit/decisions/{left.decided[0].json()['decision_id']}"
    review = {"verdict": "APPROVED", "reviewer": "Canary Reviewer", "reason": CANARIES["reviewer"]}
    left.reviewed.append(client.post(f"{path}/review", json=review, headers=HEADERS))
    left.decided.append(client.get(f"{path}/history", headers=HEADERS))
    left.refused += refused_requests(client)
    left.refused.append(client.post(SCORE, json={**BODY, "loan_amount": 1.0}, headers=keyed))
    left.refused.append(client.post(SCORE, json={**BODY, "loan_purpose": "wedding"}, headers=HEADERS))
    wait_for(lambda: (server.releases.store.folder / "checkpoints.jsonl").read_bytes().count(b"\n") > 1, 5)
    left.pages += [client.get(page) for page in ("/metrics", "/ready", "/openapi.json", "/docs", "/health")]
    (folder / "copy").mkdir()
    for file in server.database.parent.glob("decisions.sqlite*"):  # the write-ahead log is gone after the end
        (folder / "copy" / file.name).write_bytes(file.read_bytes())
    with closing(sqlite3.connect(server.database)) as database:
        database.execute("ALTER TABLE records RENAME TO moved")
    left.refused.append(client.post(SCORE, json=BODY, headers=HEADERS))
    left.pages.append(client.get("/ready"))
    with closing(sqlite3.connect(server.database)) as database:
        database.execute("ALTER TABLE moved RENAME TO records")
    assert server.stop() == 0
    return left


SCANNER = Scanner(CANARIES.items())


def test_the_service_was_used_in_every_way(left: Left) -> None:
    """Otherwise the searches below prove nothing."""
    assert {200} == {answer.status_code for answer in left.decided}
    assert [201] == [answer.status_code for answer in left.reviewed]
    assert {400, 401, 404, 405, 413, 415, 422, 500, 503} == {answer.status_code for answer in left.refused}
    assert 200 == left.pages[0].status_code
    assert "-wal" in "".join(path.name for path in (left.folder / "copy").iterdir())
    events = {json.loads(line)["event"] for line in (left.folder / "server.log").read_text("utf-8").splitlines()}
    assert {"request", "request failed", "decisions cannot be recorded", "bundle served"} <= events


def test_no_file_of_a_service_holds_a_value_of_an_applicant(left: Left) -> None:
    """Log, database with its write-ahead log, checkpoints, ledger, bundles: in no form, without exception."""
    assert [] == SCANNER.of_files(left.folder, {})


def test_no_answer_but_a_decision_repeats_a_value_of_an_applicant(left: Left) -> None:
    """Neither in a refusal nor in a header, metric or page."""
    found: list[Hit] = []
    for answer in [*left.refused, *left.pages]:
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items()).encode()
        found += SCANNER.of_bytes(answer.content + headers, str(answer.status_code))

    assert [] == found


def test_every_line_of_the_log_is_json_with_time_level_and_event(left: Left) -> None:
    """BentoML's supervisor and worker write in our form too, so that a collector reads one format."""
    lines = [json.loads(line) for line in (left.folder / "server.log").read_text("utf-8").splitlines()]

    assert len(lines) > 25
    assert {"event", "level", "timestamp"} <= set.intersection(*(set(line) for line in lines))
    requests = [line for line in lines if line["event"] == "request"]
    answers = [*left.decided, *left.refused]
    assert {answer.headers["x-request-id"] for answer in answers} <= {line["request_id"] for line in requests}


def test_what_may_be_read_with_the_master_key_is_the_record_alone(left: Left) -> None:
    """The scan finds the values where they are declared to be."""
    home = left.folder / "home"
    master = MasterKey.open(home / "keys" / "master.key", create=False)
    store = RecordStore(open_reader(f"sqlite:///{home / NAME / 'decisions.sqlite'}"), master)
    kept = b"\n".join(
        record.payload.request + record.payload.answer + repr(record.payload.features).encode()
        for _, record in store.all()
        if record
    )

    found = {hit.field for hit in SCANNER.of_bytes(kept, "records")}
    assert {"customer_id", "annual_income", "loan_amount", "employed_since", "score", "balance", "note"} == found


@pytest.mark.parametrize("form", sorted({form for value in CANARIES.values() for form in forms_of(value)}))
def test_the_scan_finds_a_planted_value_in_every_form(form: str, tmp_path: Path) -> None:
    """Without this, a scan that finds nothing is no proof."""
    name, written = next((name, forms_of(value)[form]) for name, value in CANARIES.items() if form in forms_of(value))
    (tmp_path / "a.log").write_bytes(b"x" * 999 + written + b"y")
    with closing(sqlite3.connect(tmp_path / "b.db")) as database, database:
        database.execute("CREATE TABLE t (c)")
        database.execute("INSERT INTO t VALUES (?)", (b"z" * 9000 + written + b"z" * 9000,))
    (tmp_path / "c.gz").write_bytes(gzip.compress(written))
    with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", written)

    assert {"a.log", "b.db", "c.gz", "d.zip"} == {
        hit.file for hit in SCANNER.of_files(tmp_path, {}) if hit.field == name
    }


@pytest.mark.parametrize("before", range(6))
def test_base64_is_found_wherever_the_value_stands_in_what_was_encoded(before: int) -> None:
    content = base64.b64encode(b"{" * before + CANARIES["customer_id"].encode() + b"}}")

    assert {"customer_id"} == {hit.field for hit in SCANNER.of_bytes(content, "x")}
