"""`cde measure-operation`, `stop-auto` and `resume-auto`: what operators ask of the running service."""

import asyncio
from contextlib import closing
from typing import Annotated, Literal

import typer

from cde_assets.commands.common import PortfolioArgument, choose, os_user, read_rulebook, told_no

app = typer.Typer()

SHOWN = 20

ReasonOption = Annotated[str, typer.Option(help="Why, for the log; name no person.")]


@app.command("measure-operation")
def measure_operation(
    portfolio: PortfolioArgument = None,
    sample: Annotated[int, typer.Option(min=1, help="How many decisions to take again.")] = 1000,
) -> None:
    """Measure the running service for the rules of operation, and sign what was found; a failure stops promotions."""
    settings = choose(portfolio)
    read_rulebook()
    from cde_assets.measuring import NothingToMeasureError, measure
    from cde_domain.portfolio import load_portfolio
    from cde_serving.decision_log import LogUnavailableError
    from cde_serving.records.vault import VaultError
    from cde_serving.signed_log import SignedLogError
    from cde_serving.signing import SignatureError

    page = f"http://{settings.host}:{settings.port}/metrics"
    try:
        found = measure(settings, load_portfolio(settings.portfolio), sample=sample, metrics_url=page)
    except (NothingToMeasureError, LogUnavailableError, VaultError, SignedLogError, SignatureError) as error:
        raise told_no(f"Nothing was measured: {error}") from error
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
        raise told_no("The next promotion is refused until these are mended and measured again.")


@app.command("stop-auto")
def stop_auto(portfolio: PortfolioArgument = None, reason: ReasonOption = "") -> None:
    """Send every automatic decision to MANUAL_REVIEW within two seconds, without a restart, until resumed."""
    _turn_switch(portfolio, "stop_auto", reason)


@app.command("resume-auto")
def resume_auto(portfolio: PortfolioArgument = None, reason: ReasonOption = "") -> None:
    """Let decisions be taken automatically again after `stop-auto`."""
    _turn_switch(portfolio, "resume_auto", reason)


def _turn_switch(portfolio: str | None, kind: Literal["stop_auto", "resume_auto"], reason: str) -> None:
    """Stop or resume automatic decisions of every service that records to the portfolio's log."""
    settings = choose(portfolio)
    from cde_serving.decision_log import DecisionLog, LogBusyError, LogUnavailableError
    from cde_serving.kill_switch import read_switch, turn

    name, stops = settings.portfolio_name(), kind == "stop_auto"
    try:
        with closing(DecisionLog.open_existing(settings, name)) as log:
            before = read_switch(log.read_engine, name)
            if not stops and not before.stopped:
                raise told_no(f"Automatic decisions of {name} are not stopped")
            asyncio.run(turn(log, name, kind, by=os_user(), reason=reason, clock=settings.clock()))
            state = read_switch(log.read_engine, name)
    except (LogBusyError, LogUnavailableError) as error:
        raise told_no(f"Not {'stopped' if stops else 'resumed'}: {error}") from error
    if state.stopped is not stops:
        raise told_no(
            f"Recorded, but {state.by} turned it the other way at the same moment: look at /ready and try again"
        )
    if stops:
        typer.echo(f"Stopped: within 2 s every decision of {name} goes to MANUAL_REVIEW, until `cde resume-auto`.")
    else:
        typer.echo(f"Resumed: {name} decides automatically again, after a stop since {before.since} by {before.by}.")
