"""`cde loop`: the whole loop unattended, on a lender of its own."""

import warnings
from typing import Annotated

import typer

from cde_assets.commands.common import choose

app = typer.Typer()


@app.command()
def loop(
    look: Annotated[
        bool, typer.Option("--look", help="Run the platform over what the last loop left, until Ctrl-C.")
    ] = False,
) -> None:
    """
    Watch the loop close in minutes: drift appears, a challenger is trained, tried out and promoted; harm is stopped.

    It runs on a lender of its own in $CDE_HOME/loop, which it empties first, with a real service and Dagster's daemon.
    """
    warnings.filterwarnings("ignore")  # deprecations inside libraries are no news to a lender
    settings = choose(None)
    from cde_assets.loop.running import look_around, run_loop

    raise typer.Exit(look_around(settings) if look else run_loop(settings))
