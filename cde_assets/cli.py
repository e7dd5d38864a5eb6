"""The `cde` command. Exit status: 0 is yes, 1 is no, 2 is misuse."""

import json
import os
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Run the credit decision engine and ask it questions."
)

PortfolioArgument = Annotated[
    str | None,
    typer.Argument(
        help="personal_loan, german_credit, lending_club, or an import path like my_bank.car_loans:PORTFOLIO"
    ),
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option", help="NAME=VALUE, an option of the portfolio's sources, e.g. rows=60000 or path=loans.csv"
    ),
]


def _choose(portfolio: str | None, options: list[str] | None = None) -> Any:
    """Make the choice on the command line the settings of this process and of every one it starts."""
    from pydantic import ValidationError

    from cde_assets.telemetry import switch_telemetry_off
    from cde_domain.portfolio import PortfolioError, load_portfolio
    from cde_serving.settings import Settings

    switch_telemetry_off()
    if portfolio:
        os.environ["CDE_PORTFOLIO"] = portfolio
    try:
        if options:
            os.environ["CDE_SOURCE_OPTIONS"] = json.dumps(dict(_option(option) for option in options))
        settings = Settings()
        load_portfolio(settings.portfolio).options.model_validate(settings.source_options)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise typer.BadParameter(problems, param_hint="--option") from error
    except PortfolioError as error:
        raise typer.BadParameter(str(error), param_hint="PORTFOLIO") from error
    os.environ["CDE_HOME"] = str(settings.home)
    return settings


def _option(option: str) -> tuple[str, Any]:
    name, equals, value = option.partition("=")
    if not equals:
        raise typer.BadParameter(f"{option!r} is not NAME=VALUE", param_hint="--option")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@app.command()
def demo(portfolio: PortfolioArgument = None, option: OptionsOption = None) -> None:
    """Go the whole way: loan book, model, promotion, served bento, and one decision on the portfolio's example."""
    settings = _choose(portfolio, option)
    from cde_assets.demo import run_demo

    raise typer.Exit(run_demo(settings))


@app.command()
def up(portfolio: PortfolioArgument = None, option: OptionsOption = None) -> None:
    """Start Dagster, MLflow and the scoring service, and keep them running until Ctrl-C."""
    settings = _choose(portfolio, option)
    from cde_assets.stack import run_stack

    raise typer.Exit(run_stack(settings))


@app.command()
def serve(
    portfolio: PortfolioArgument = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 8000 by default.")] = None,
) -> None:
    """Serve the promoted bento in the foreground."""
    settings = _choose(portfolio)
    from cde_assets.stack import serve_promoted

    serve_promoted(settings, port or settings.port)


@app.command("why-not")
def why_not(portfolio: PortfolioArgument = None) -> None:
    """Explain why the latest challenger cannot be promoted: which statement, which number, what to do."""
    settings = _choose(portfolio)
    from cde_assets.demo import open_instance
    from cde_checks.gate import refusals

    name = settings.portfolio_name()
    with open_instance(settings) as instance:
        found = refusals(instance, name)
    if not found:
        typer.echo(f"The latest challenger of {name} passed every check; nothing stands in the way of its promotion.")
        return
    typer.echo(f"The latest challenger of {name} cannot be promoted:")
    for refusal in found:
        typer.echo(f"  - {refusal}")
    raise typer.Exit(1)
