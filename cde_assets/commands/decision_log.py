"""`cde verify-log`, `replay` and `erase`: what officers ask of the decision log."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cde_assets.commands.common import PortfolioArgument, PortfolioOption, choose, told_no

if TYPE_CHECKING:
    from cde_serving.records.replay import Replayer

app = typer.Typer()

SHOWN = 20


@app.command("verify-log")
def verify_log(
    portfolio: PortfolioArgument = None,
    checkpoints: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A copy of the checkpoints kept elsewhere.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The public key to trust; that of the settings by default."),
    ] = None,
) -> None:
    """Verify the decision log: find and locate what was changed, removed, reordered, cut off or rewritten."""
    settings = choose(portfolio)
    from cde_serving.decision_log import LogUnavailableError
    from cde_serving.records.database import open_reader
    from cde_serving.records.vault import MasterKey, VaultError
    from cde_serving.records.verify import verify_log as verify
    from cde_serving.signing import SignatureError, TrustedKeys

    name = settings.portfolio_name()
    try:
        trusted = TrustedKeys.read(key or settings.log_public_key_file())
        engine = open_reader(settings.log_url(name), name)
        try:
            master = MasterKey.open(settings.master_key_file(), create=False)
        except VaultError as error:
            master = None
            typer.echo(f"Whether the customers' keys are whole was not checked: {error}")
        found = verify(engine, checkpoints or settings.checkpoints_file(name), trusted, master)
    except (LogUnavailableError, SignatureError) as error:
        raise told_no(f"NOT verified: {error}") from error
    typer.echo(f"{found.records:,} records in {found.chains:,} chains, {found.checkpoints:,} signed checkpoints")
    if found.unsigned:
        typer.echo(
            f"{found.unsigned:,} records are newer than the last checkpoint of their chain: chained, not yet signed"
        )
    for problem in found.problems:
        typer.echo(f"  - {problem}")
    if found.problems:
        raise told_no("NOT verified: the log is not what was written")
    typer.echo("verified")


@app.command()
def replay(
    decision_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The decision.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every recorded decision.")] = False,
    tenant: Annotated[str, typer.Option(help="Whose decision ID is.")] = "default",
    portfolio: PortfolioOption = None,
    bundles: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="A further folder of bundles.")
    ] = None,
) -> None:
    """Take recorded decisions again, with the bundle that took them: are score, decision and reasons the same?"""
    if (decision_id is None) != all_:
        raise typer.BadParameter("give the ID of one decision, or --all")
    settings = choose(portfolio)
    from cde_serving.decision_log import LogUnavailableError
    from cde_serving.records.database import open_reader
    from cde_serving.records.replay import Replayer
    from cde_serving.records.store import RecordStore
    from cde_serving.records.vault import MasterKey, VaultError
    from cde_serving.releases import BUNDLES

    name = settings.portfolio_name()
    try:
        store = RecordStore(
            open_reader(settings.log_url(name), name), MasterKey.open(settings.master_key_file(), create=False)
        )
    except (LogUnavailableError, VaultError) as error:
        raise told_no(f"Nothing can be replayed: {error}") from error
    folders = [folder for folder in (bundles, settings.portfolio_home(name) / BUNDLES) if folder]
    replayer = Replayer(store, *folders)
    if decision_id is None:
        _replay_all(replayer)
    else:
        _replay_one(replayer, decision_id, tenant)


def _replay_one(replayer: "Replayer", decision_id: str, tenant: str) -> None:
    again = replayer.replay(decision_id, tenant)
    if again is None:
        raise told_no(f"There is no decision {decision_id}")
    source = "request and features" if again.from_request else "features; the code is another, so not from the request"
    typer.echo(f"{decision_id}: {again.outcome}" + (f" (from {source})" if again.outcome == "identical" else ""))
    if again.detail:
        typer.echo(f"  {again.detail}")
    if again.outcome not in ("identical", "erased"):
        raise typer.Exit(1)


def _replay_all(replayer: "Replayer") -> None:
    outcomes: Counter[str] = Counter()
    for again in replayer.replay_all():
        outcomes[again.outcome] += 1
        if again.detail and outcomes["different"] + outcomes["impossible"] <= SHOWN:
            typer.echo(f"  - {again.record_id} {again.outcome}: {again.detail}")
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    typer.echo(f"{outcomes.total():,} decisions replayed: {told or 'none recorded'}")
    if outcomes["different"] or outcomes["impossible"]:
        raise typer.Exit(1)


@app.command()
def erase(
    customer: Annotated[str | None, typer.Argument(metavar="[CUSTOMER]", help="The customer's id.")] = None,
    now: Annotated[bool, typer.Option("--now", help="No duty to keep applies: shred at once.")] = False,
    due: Annotated[bool, typer.Option("--due", help="Shred whoever's retention has ended.")] = False,
    tenant: Annotated[str, typer.Option(help="Whose customer it is.")] = "default",
    portfolio: PortfolioOption = None,
) -> None:
    """Erase a customer: restrict at once, and shred the key when the retention ends. The chain still verifies."""
    if customer is None and not due:
        raise typer.BadParameter("give a customer's id, or --due")
    settings = choose(portfolio)
    import getpass
    from contextlib import closing

    from cde_assets.erasing import Erasing
    from cde_domain.portfolio import load_portfolio
    from cde_serving.decision_log import DecisionLog, LogUnavailableError
    from cde_serving.records.erasure import CopiesRemainError, UnknownCustomerError

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
        raise told_no(f"NOT wholly erased: what was to be erased is recorded as such, but {error}") from error
    except (UnknownCustomerError, LogUnavailableError) as error:
        raise told_no(f"Not erased: {error}") from error
