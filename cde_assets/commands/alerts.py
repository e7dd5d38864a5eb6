"""`cde alerts`: try the channels, and see what waits."""

from collections.abc import Callable
from typing import TypeVar

import typer

from cde_assets.commands.common import PortfolioArgument, choose, os_user, told_no

app = typer.Typer(name="alerts", no_args_is_help=True, help="Try the channels that alerts take, and see what waits.")


@app.command("test")
def try_channels(portfolio: PortfolioArgument = None) -> None:
    """Send a test alert over every channel that is set up; the answer is no if one does not take it for everybody."""
    settings = choose(portfolio)
    from cde_resources.alerts.alert import Alert, Message, hand_over
    from cde_resources.alerts.alerter import open_channels

    name = settings.portfolio_name()
    now = settings.clock()()
    alert = Alert(
        key="test",
        title="A test of the alerts",
        what=f"{os_user()} asked for a test. Nothing is wrong.",
        where=settings.dagster_address(),
        did="Sent this message.",
        severity="info",
    )
    message = Message(id=f"test-{now:%Y%m%dT%H%M%S%f}", portfolio=name, at=now, alert=alert)
    failed = []
    for channel in _opened(lambda: open_channels(settings)):
        taken, said = hand_over(channel, message)
        if said:
            failed.append(channel.name)
            typer.echo(f"{channel.name}: {'taken, but ' if taken else ''}{said}", err=True)
        else:
            typer.echo(f"{channel.name}: taken")
    if failed:
        raise told_no(f"Not every channel took the message for everybody: {', '.join(failed)}", err=True)


@app.command("waiting")
def show_waiting(portfolio: PortfolioArgument = None) -> None:
    """Say which alerts no channel has taken yet; the sensors try them again. The answer is no while one waits."""
    settings = choose(portfolio)
    from cde_resources.alerts.alerter import open_alerter

    waiting = _opened(lambda: open_alerter(settings, settings.portfolio_name())).waiting()
    if waiting:
        raise told_no("\n".join(waiting))
    typer.echo("Nothing waits.")


Opened = TypeVar("Opened")


def _opened(opening: Callable[[], Opened]) -> Opened:
    try:
        return opening()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="settings") from error
