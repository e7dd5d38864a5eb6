"""`cde simulate-policy`: what another policy or model would have decided."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cde_assets.commands.common import PortfolioOption, choose, told_no

if TYPE_CHECKING:
    from rich.console import Console

    from cde_assets.decisions.simulating import Simulation

app = typer.Typer()

SHOWN = 10
DAY = ["%Y-%m-%d"]


@app.command("simulate-policy")
def simulate_policy(
    policy: Annotated[
        Path | None, typer.Argument(metavar="NEW.yaml", exists=True, dir_okay=False, help="The other policy.")
    ] = None,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=DAY, help="The first day; 30 days are looked at by default.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DAY, help="The last day; yesterday by default.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Another model: (the first digits of) its bundle's digest.")
    ] = None,
    html: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the report as a page.")] = None,
    csv: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the decisions that change.")] = None,
    portfolio: PortfolioOption = None,
) -> None:
    """
    Replay recorded decisions under another policy or model: approvals, bad loans, profit, fairness, who changes.

    Exit status 1: nothing could be simulated, or some decisions are not reproduced by the bundle that took them.
    """
    if policy is None and bundle is None:
        raise typer.BadParameter("give a policy file, --bundle, or both")
    for file in (html, csv):
        if file and not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"there is no folder {file.parent}", param_hint="--html, --csv")
    settings = choose(portfolio)
    from rich.console import Console

    found = _simulated(settings, policy, first, last, bundle)
    _tell(Console(soft_wrap=True), found)
    if html:
        from cde_assets.decisions.simulation_page import page

        html.write_text(page(found.report), encoding="utf-8")
        typer.echo(f"The report is in {html}")
    if csv:
        found.changed.to_csv(csv, index=False)
        typer.echo(f"The {found.report['changed']:,} decisions that change are in {csv}")
    from cde_domain.decisions.simulation.replaying import NOT_REPRODUCED

    if found.report["kept"].get(NOT_REPRODUCED) or not found.report["taken_again"]:
        raise typer.Exit(1)


def _simulated(
    settings: Any, policy: Path | None, first: datetime | None, last: datetime | None, bundle: str | None
) -> "Simulation":
    from cde_assets.decisions.simulating import Asked, last_days, simulation_of
    from cde_domain.decisions.policy import PolicyError
    from cde_domain.decisions.simulation.replaying import SimulationError
    from cde_domain.portfolio import load_portfolio
    from cde_resources.releases import ReleasesResource
    from cde_serving.signed_log import SignedLogError

    releases = ReleasesResource.of(settings, settings.portfolio_name())
    now = releases.now()
    began, ended = last_days(now)
    if last is not None:
        began, ended = last.date() - (ended - began), last.date()
    if first is not None:
        began = first.date()
    if ended < began:
        raise typer.BadParameter(f"the period ends on {ended}, before it begins on {began}", param_hint="--from, --to")
    try:
        asked = Asked(began, ended, policy, bundle)
        return simulation_of(asked, load_portfolio(settings.portfolio), releases.store(), now)
    except PolicyError as error:
        raise typer.BadParameter(str(error), param_hint="NEW.yaml") from error
    except (SimulationError, SignedLogError) as error:
        raise told_no(f"Nothing was simulated: {error}", err=True) from error


def _tell(console: "Console", found: "Simulation") -> None:
    from rich.markup import escape
    from rich.table import Table

    from cde_assets.decisions.simulation_page import tables, title

    report = found.report
    console.print(
        f"{escape(title(report))}: {report['decisions']:,} decisions of {report['first']} to {report['last']}, "
        f"{report['taken_again']:,} taken again, [bold]{report['changed']:,} change[/bold]",
        highlight=False,
    )
    for note in report["notes"]:
        console.print(f"  - {escape(note)}", highlight=False)
    changed = found.changed.head(SHOWN).rename(columns={"decision_id": "decision"})
    some = f"Decisions that change ({len(changed)} of {report['changed']:,}; --csv writes all)"
    listed = {some: changed[["decision", "from", "to", "why"]].to_dict("records")} if len(changed) else {}
    for name, rows in {**tables(report), **listed}.items():
        shown = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in rows[0]:  # an id that is cut off can be given to no other command
            shown.add_column(column, overflow="fold", no_wrap=column in ("decision", "from", "to"))
        for row in rows:
            shown.add_row(*(escape(cell) for cell in row.values()))
        console.print()
        console.print(shown)
