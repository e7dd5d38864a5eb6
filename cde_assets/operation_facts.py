"""Facts for the rules of operation, each measured on the decision log of a running service and never assumed."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.engine import Engine, make_url

from cde_domain.governance.facts import Fact, counted
from cde_serving.records.monitoring import monitored
from cde_serving.records.names import iso
from cde_serving.records.record import ErasedError, Record
from cde_serving.records.replay import Replayer
from cde_serving.records.schema import customer_keys, records
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import NONCE_BYTES, MasterKey, VaultError
from cde_serving.records.verify import Verification

AUDIT_LOG, REPLAY, CRYPTO, ERASURE = "audit_log_check.json", "replay.json", "crypto_check.json", "erasure_drill.json"

ENOUGH_REPLAYED = 200  # what DEC-02 asks for; fewer are no verdict
UNSEALED = 20_000  # the newest; all would take hours of a large log
GRACE = timedelta(days=2)  # what is due is shredded once a day

# What a decision without an idempotency key, and a chain's first, has none of; `about` names another record.
_OPTIONAL = ("idempotency", "fingerprint", "previous", "about")

_decisions = records.c.kind == "decision"
_with_key = sa.and_(records.c.customer == customer_keys.c.customer, records.c.key_number == customer_keys.c.number)


def log_facts(engine: Engine, verification: Verification, metrics_page: str | None) -> list[Fact]:
    """
    Whether every answer is in the log, with every field, in unbroken chains.

    Without the page of metrics of a running service nothing is said of answers that were not recorded.
    """
    facts = counted(AUDIT_LOG, {"hash_chain_breaks": len(verification.problems)})
    required = [column for column in records.columns if column.name not in _OPTIONAL]
    whole = sa.and_(*(column.is_not(None) for column in required))
    with engine.connect() as connection:
        total, complete = (
            connection.execute(
                sa.select(sa.func.count()).select_from(records).where(_decisions, condition)
            ).scalar_one()
            for condition in (sa.true(), whole)
        )
        if total:
            facts += counted(AUDIT_LOG, {"field_completeness": complete / total})
        if metrics_page is not None:
            answered, chain = _answered(metrics_page)
            of_chain = sa.select(sa.func.count()).select_from(records).where(_decisions, records.c.chain == chain)
            recorded = connection.execute(of_chain).scalar_one()
            facts += counted(AUDIT_LOG, {"decisions_without_log": max(0, answered - recorded)})
    return facts


def _answered(page: str) -> tuple[int, str]:
    """How many decisions a service answered since it started, and the chain that it writes them to."""
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    answered = sum(int(sample.value) for sample in samples if sample.name == "cde_decisions_total")
    return answered, next(sample.labels["chain"] for sample in samples if sample.name == "cde_decision_log_info")


def replay_facts(store: RecordStore, bundles: Sequence[Path], sample: int, seed: int) -> list[Fact]:
    """Whether decisions drawn at random come out the same again; one that cannot be taken again is a mismatch."""
    ids = list(store.ids())
    drawn = random.Random(seed).sample(ids, min(sample, len(ids)))  # noqa: S311  # a sample, not a secret
    replayer = Replayer(store, *bundles)
    taken = [again for name, tenant in drawn if (again := replayer.replay(name, tenant)) and again.outcome != "erased"]
    if not taken:
        return []
    mismatches = sum(again.outcome != "identical" for again in taken)
    differences = [again.score_difference for again in taken if again.score_difference is not None]
    return [
        Fact("n_replayed", REPLAY, float(len(taken)), sufficient=len(taken) >= ENOUGH_REPLAYED),
        Fact("decision_mismatches", REPLAY, float(mismatches)),
        *(Fact("max_abs_score_diff", REPLAY, max(differences)) for _ in differences[:1]),
    ]


def crypto_facts(engine: Engine, master: MasterKey, *, key_file: Path, url: str, home: Path) -> list[Fact]:
    """Whether payloads are sealed, nonces used once, customers named by tokens, and the master key kept elsewhere."""
    store = RecordStore(engine, master)
    unsealed, tokens = 0, Counter[bool]()
    with engine.connect() as connection:
        rows = connection.execute(
            sa.select(records.c.record_id, records.c.tenant, records.c.customer)
            .where(_decisions)
            .order_by(records.c.record_id.desc())
            .limit(UNSEALED)
        ).all()
        nonces = (
            sa.select(sa.func.count().label("times"))
            .where(records.c.payload.is_not(None))
            .group_by(records.c.customer, records.c.key_number, sa.func.substr(records.c.payload, 1, NONCE_BYTES))
            .subquery()
        )
        reused = connection.execute(sa.select(sa.func.sum(nonces.c.times - 1))).scalar()
    for row in rows:
        try:
            record = store.get(row.record_id, row.tenant)
        except ErasedError:
            continue
        except VaultError:
            unsealed += 1
        else:
            assert record is not None
            tokens[master.token("customer", row.tenant, record.payload.customer_id) == row.customer] += 1
    database = make_url(url).database if url.startswith("sqlite") else None
    beside = database is not None and key_file.is_relative_to(home) and Path(database).is_relative_to(home)
    facts: dict[str, float | bool | str] = {
        "rows_not_aead": unsealed,
        "nonce_reuse": int(reused or 0),
        "kek_in_same_store": beside,
        "serving_role_can_read_protected": any(True for _ in monitored(engine, master)),
    }
    if tokens:
        facts["pseudonym_scheme"] = "other" if tokens[False] else "HMAC-SHA-256"
    return counted(CRYPTO, facts)


def erasure_facts(engine: Engine, store: RecordStore, verification: Verification, now: datetime) -> list[Fact]:
    """Whether what was shredded is unreadable and the chain whole, neither too early nor too late."""
    early = sa.and_(customer_keys.c.erased_at.is_not(None), customer_keys.c.erased_at < customer_keys.c.erase_after)
    late = sa.and_(customer_keys.c.wrapped.is_not(None), customer_keys.c.erase_after < iso(now - GRACE))
    joined = sa.select(records.c.record_id, records.c.tenant).join(customer_keys, _with_key).where(_decisions)
    with engine.connect() as connection:
        shredded = connection.execute(joined.where(customer_keys.c.erased_at.is_not(None))).all()
        too_early, too_late = (len(connection.execute(joined.where(when)).all()) for when in (early, late))
    drilled = bool(shredded)  # before the first erasure nothing is known of erasing
    return [
        Fact("decryptable_after_shred", ERASURE, float(_readable(store, shredded)), sufficient=drilled),
        Fact("hash_chain_breaks_after_shred", ERASURE, float(len(verification.problems)), sufficient=drilled),
        *counted(
            ERASURE,
            {
                "records_erased_before_legal_minimum": too_early,
                "records_kept_past_schedule_without_hold": too_late,
            },
        ),
    ]


def _readable(store: RecordStore, rows: Sequence[Any]) -> int:
    readable = 0
    for row in rows:
        with suppress(ErasedError, VaultError):
            readable += store.get(row.record_id, row.tenant) is not None
    return readable


def newest(store: RecordStore, count: int) -> Iterator[Record]:
    """The newest decisions that may be read."""
    for record_id, tenant in sorted(store.ids(), reverse=True)[:count]:  # ids begin with the time
        with suppress(ErasedError, VaultError):
            if record := store.get(record_id, tenant):
                yield record
