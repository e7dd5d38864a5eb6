"""Measures the running service and appends what was found, signed, to the facts of operation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import httpx

from cde_assets.operation_facts import (
    AUDIT_LOG,
    CRYPTO,
    ERASURE,
    REPLAY,
    crypto_facts,
    erasure_facts,
    log_facts,
    newest,
    replay_facts,
)
from cde_assets.pii_facts import ARTEFACT as PII
from cde_assets.pii_facts import pii_facts
from cde_assets.pii_scan import Hit
from cde_domain.governance.facts import Fact
from cde_domain.governance.rulebook import Phase, Rulebook
from cde_domain.governance.verdicts import RuleResult, evaluate
from cde_domain.portfolio import Portfolio
from cde_resources.releases import ReleasesResource
from cde_serving.operation import write_operation_facts
from cde_serving.records.database import open_reader
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey
from cde_serving.records.verify import verify_log
from cde_serving.releases import BUNDLES
from cde_serving.settings import Settings
from cde_serving.signing import TrustedKeys

SCANNED_DECISIONS = 10


class NothingToMeasureError(RuntimeError):
    """Nothing was promoted, so that no service runs."""


@dataclass(frozen=True)
class Measurement:
    """What was measured, by artefact, where personal values were found, and what the rules of operation say now."""

    facts: Mapping[str, list[Fact]]
    hits: list[Hit]
    rules: list[RuleResult]

    @property
    def failed(self) -> list[RuleResult]:
        """The rules that stop the next promotion."""
        return [rule for rule in self.rules if rule.blocks]


def measure(settings: Settings, portfolio: Portfolio, *, sample: int, metrics_url: str | None) -> Measurement:
    """
    Measure a portfolio's service: its log, `sample` decisions again, keys, erasures, and what leaks out.

    What cannot be measured (no service answers at `metrics_url`, no decision was taken) is left out, and stays open.

    Raises:
        NothingToMeasureError: nothing was promoted yet.
        LogUnavailableError, VaultError, SignatureError: log or keys cannot be opened.
        OperationFactsError, LedgerError: the facts cannot be appended.
    """
    releases = ReleasesResource.of(settings, portfolio.name)
    store = releases.store()
    serving = store.ledger.current()
    if serving is None:
        raise NothingToMeasureError(f"nothing of {portfolio.name} is promoted yet")
    now = releases.now()
    facts, hits = _facts(settings, portfolio, store.folder, sample, now, _page(metrics_url))
    rulebook = Rulebook.read()
    for artefact, measured in facts.items():
        if measured:
            write_operation_facts(
                store.operation,
                artefact,
                measured,
                portfolio=portfolio.name,
                bundle=serving.bundle,
                measured_at=now,
                key=releases.signer(),
                rulebook=rulebook,
            )
    rules = tuple(rule for rule in rulebook.rules if rule.phase is Phase.OPERATION)
    results = evaluate(
        rulebook.model_copy(update={"rules": rules}),
        releases.measured(rulebook).facts(releases.now()),
        portfolio.jurisdiction,
        thresholds=asdict(portfolio.thresholds),
        today=now.date(),
    )
    return Measurement(facts, hits, results)


def _facts(
    settings: Settings, portfolio: Portfolio, folder: Path, sample: int, now: datetime, page: str | None
) -> tuple[dict[str, list[Fact]], list[Hit]]:
    name = portfolio.name
    url, key_file = settings.log_url(name), settings.master_key_file()
    engine = open_reader(url, name)
    try:
        master = MasterKey.open(key_file, create=False)
        records = RecordStore(engine, master)
        trusted = TrustedKeys.read(settings.log_public_key_file())
        verification = verify_log(engine, settings.checkpoints_file(name), trusted, master)
        leaked, hits = pii_facts(settings.home, portfolio, newest(records, SCANNED_DECISIONS))
        facts = {
            AUDIT_LOG: log_facts(engine, verification, page),
            REPLAY: replay_facts(records, [folder / BUNDLES], sample, seed=now.toordinal()),
            CRYPTO: crypto_facts(engine, master, key_file=key_file, url=url, home=settings.home),
            ERASURE: erasure_facts(engine, records, verification, now),
            PII: leaked,
        }
    finally:
        engine.dispose()
    return facts, hits


def _page(url: str | None) -> str | None:
    """The metrics of the running service; None if none answers."""
    if url is None:
        return None
    try:
        answer = httpx.get(url, timeout=5)
        return answer.raise_for_status().text
    except httpx.HTTPError:
        return None
