"""`cde demo`, `up` and `serve`: run the platform, or a part of it."""

from typing import Annotated

import typer

from cde_assets.commands.common import PortfolioArgument, choose, read_rulebook

app = typer.Typer()

OptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option", help="NAME=VALUE, an option of the portfolio's sources, e.g. rows=60000 or path=loans.csv"
    ),
]


@app.command()
def demo(portfolio: PortfolioArgument = None, option: OptionsOption = None) -> None:
    """Go the whole way: loan book, model, promotion, served bento, and one decision on the portfolio's example."""
    settings = choose(portfolio, option)
    read_rulebook()
    from cde_assets.demo import run_demo

    raise typer.Exit(run_demo(settings))


@app.command()
def up(portfolio: PortfolioArgument = None, option: OptionsOption = None) -> None:
    """Start Dagster, MLflow and the scoring service, and keep them running until Ctrl-C."""
    settings = choose(portfolio, option)
    read_rulebook()
    from cde_assets.stack import run_stack

    raise typer.Exit(run_stack(settings))


@app.command()
def serve(
    portfolio: PortfolioArgument = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 8000 by default.")] = None,
) -> None:
    """Serve the promoted bento in the foreground."""
    settings = choose(portfolio)
    from cde_assets.stack import serve_promoted

    serve_promoted(settings, port or settings.port)
