"""What the commands about the decision log do; each returns its exit status."""

import asyncio
import getpass
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Literal

import typer

from cde_assets.erasing import Erasing
from cde_domain.portfolio import load_portfolio
from cde_serving.decision_log import DecisionLog, LogBusyError, LogUnavailableError
from cde_serving.kill_switch import read_switch, turn
from cde_serving.records.database import open_reader
from cde_serving.records.erasure import CopiesRemainError, UnknownCustomerError
from cde_serving.records.replay import Replayer
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey, VaultError
from cde_serving.records.verify import verify_log
from cde_serving.releases import BUNDLES
from cde_serving.settings import Settings
from cde_serving.signed_log import SignedLogError
from cde_serving.signing import SignatureError, TrustedKeys

SHOWN = 20


def verify(settings: Settings, checkpoints: Path | None, key: Path | None) -> int:
    """Verify the chains of the decision log, and say where it was changed."""
    name = settings.portfolio_name()
    try:
        trusted = TrustedKeys.read(key or settings.log_public_key_file())
        engine = open_reader(settings.log_url(name))
        try:
            master = MasterKey.open(settings.master_key_file(), create=False)
        except VaultError as error:
            master = None
            typer.echo(f"Whether the customers' keys are whole was not checked: {error}")
        found = verify_log(engine, checkpoints or settings.checkpoints_file(name), trusted, master)
    except (LogUnavailableError, SignatureError) as error:
        typer.echo(f"NOT verified: {error}")
        return 1
    typer.echo(f"{found.records:,} records in {found.chains:,} chains, {found.checkpoints:,} signed checkpoints")
    if found.unsigned:
        typer.echo(
            f"{found.unsigned:,} records are newer than the last checkpoint of their chain: chained, not yet signed"
        )
    for problem in found.problems:
        typer.echo(f"  - {problem}")
    typer.echo("NOT verified: the log is not what was written" if found.problems else "verified")
    return 1 if found.problems else 0


def replay(settings: Settings, decision_id: str | None, bundles: Path | None, tenant: str) -> int:
    """Take one recorded decision again, or all."""
    name = settings.portfolio_name()
    try:
        store = RecordStore(
            open_reader(settings.log_url(name)), MasterKey.open(settings.master_key_file(), create=False)
        )
    except (LogUnavailableError, VaultError) as error:
        typer.echo(f"Nothing can be replayed: {error}")
        return 1
    folders = [folder for folder in (bundles, settings.portfolio_home(name) / BUNDLES) if folder]
    replayer = Replayer(store, *folders)
    if decision_id is not None:
        one = replayer.replay(decision_id, tenant)
        if one is None:
            typer.echo(f"There is no decision {decision_id}")
            return 1
        source = (
            "request and features" if one.from_request else "features; the code is another, so not from the request"
        )
        typer.echo(f"{decision_id}: {one.outcome}" + (f" (from {source})" if one.outcome == "identical" else ""))
        if one.detail:
            typer.echo(f"  {one.detail}")
        return 0 if one.outcome in ("identical", "erased") else 1
    outcomes: Counter[str] = Counter()
    for again in replayer.replay_all():
        outcomes[again.outcome] += 1
        if again.detail and outcomes["different"] + outcomes["impossible"] <= SHOWN:
            typer.echo(f"  - {again.record_id} {again.outcome}: {again.detail}")
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    typer.echo(f"{outcomes.total():,} decisions replayed: {told or 'none recorded'}")
    return 1 if outcomes["different"] or outcomes["impossible"] else 0


def erase(settings: Settings, customer: str | None, *, now: bool, due: bool, tenant: str) -> int:
    """Erase a customer, or all whose retention has ended."""
    by = f"person:{getpass.getuser()}"
    try:
        with closing(DecisionLog.open_existing(settings, settings.portfolio_name())) as log:
            erasing = Erasing(log, settings, load_portfolio(settings.portfolio), by=by)
            if due:
                shredded, lost = erasing.erase_due()
                typer.echo(f"Shredded the data of {shredded:,} customers whose retention has ended")
                typer.echo(f"{lost:,} rows of erased customers were dropped from tables")
            if customer is not None:
                done, lost = erasing.erase(customer, at_once=now, tenant=tenant)
                typer.echo(f"{lost:,} rows of the customer were dropped from tables")
                if done.erase_after:
                    typer.echo(f"Restricted at once; the law keeps the decisions until {done.erase_after[:10]}.")
                    typer.echo("The schedule erase_due shreds what is due, as does `cde erase --due`.")
                else:
                    typer.echo("Erased: the customer's key is shredded and nothing recorded of them can be read.")
    except CopiesRemainError as error:
        typer.echo(f"NOT wholly erased: what was to be erased is recorded as such, but {error}")
        return 1
    except (UnknownCustomerError, LogUnavailableError) as error:
        typer.echo(f"Not erased: {error}")
        return 1
    return 0


def measure_operation(settings: Settings, sample: int) -> int:
    """Measure the running service, and say which rules of operation hold, fail or are open."""
    from cde_assets.measuring import NothingToMeasureError, measure

    page = f"http://{settings.host}:{settings.port}/metrics"
    try:
        found = measure(settings, load_portfolio(settings.portfolio), sample=sample, metrics_url=page)
    except (NothingToMeasureError, LogUnavailableError, VaultError, SignedLogError, SignatureError) as error:
        typer.echo(f"Nothing was measured: {error}")
        return 1
    for artefact, facts in found.facts.items():
        told = ", ".join(f"{fact.metric} {fact.value}" for fact in facts)
        typer.echo(f"{artefact}: {told or 'nothing to measure yet'}")
    for hit in found.hits[:SHOWN]:
        typer.echo(f"  - a value of {hit.field} ({hit.form}) stands in {hit.file}")
    for rule in found.rules:
        typer.echo(f"{rule.id} {rule.said}: {rule.title}")
        if rule.blocks:
            typer.echo(f"  {rule.plain()}")
    if found.failed:
        typer.echo("The next promotion is refused until these are mended and measured again.")
    return 1 if found.failed else 0


def turn_switch(settings: Settings, kind: Literal["stop_auto", "resume_auto"], *, by: str, reason: str) -> int:
    """Stop or resume automatic decisions of every service that records to the portfolio's log."""
    name, stops = settings.portfolio_name(), kind == "stop_auto"
    try:
        with closing(DecisionLog.open_existing(settings, name)) as log:
            before = read_switch(log.read_engine, name)
            if not stops and not before.stopped:
                typer.echo(f"Automatic decisions of {name} are not stopped")
                return 1
            asyncio.run(turn(log, name, kind, by=by, reason=reason))
            state = read_switch(log.read_engine, name)
    except (LogBusyError, LogUnavailableError) as error:
        typer.echo(f"Not {'stopped' if stops else 'resumed'}: {error}")
        return 1
    if state.stopped is not stops:
        typer.echo(f"Recorded, but an event of {state.since} counts for later: compare the clocks of the machines")
        return 1
    if stops:
        typer.echo(f"Stopped: within 2 s every decision of {name} goes to MANUAL_REVIEW, until `cde resume-auto`.")
    else:
        typer.echo(f"Resumed: {name} decides automatically again, after a stop since {before.since} by {before.by}.")
    return 0
