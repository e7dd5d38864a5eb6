"""What commands share: the choice of a portfolio, who types, and how a command ends with a no."""

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cde_domain.governance.rulebook import Rulebook
    from cde_serving.settings import Settings

PortfolioArgument = Annotated[
    str | None,
    typer.Argument(
        help="personal_loan, german_credit, lending_club, or an import path like my_bank.car_loans:PORTFOLIO"
    ),
]
PortfolioOption = Annotated[str | None, typer.Option("--portfolio", help="The portfolio, as for the other commands.")]


def choose(portfolio: str | None, options: list[str] | None = None) -> "Settings":
    """
    Make the choice on the command line the settings of this process and of every one it starts.

    Raises:
        BadParameter: there is no such portfolio, its sources have no such option, or the clock file tells no time.
    """
    from pydantic import ValidationError

    from cde_assets.telemetry import switch_telemetry_off
    from cde_domain.portfolio import PortfolioError, load_portfolio
    from cde_serving.clock_file import ClockFileError
    from cde_serving.settings import Settings

    switch_telemetry_off()
    if portfolio:
        os.environ["CDE_PORTFOLIO"] = portfolio
    try:
        if options:
            os.environ["CDE_SOURCE_OPTIONS"] = json.dumps(dict(_option(option) for option in options))
        settings = Settings()
        load_portfolio(settings.portfolio).options.model_validate(settings.source_options)
        settings.clock()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        hint = "settings (CDE_...)" if error.title == Settings.__name__ else "--option"
        raise typer.BadParameter(problems, param_hint=hint) from error
    except PortfolioError as error:
        raise typer.BadParameter(str(error), param_hint="PORTFOLIO") from error
    except ClockFileError as error:
        raise typer.BadParameter(str(error), param_hint="CDE_CLOCK_FILE") from error
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


def read_rulebook() -> "Rulebook":
    """The rulebook; a bad one is told at once, not after minutes of training."""
    from cde_domain.governance.rulebook import Rulebook, RulebookError

    try:
        return Rulebook.read()
    except RulebookError as error:
        raise told_no(str(error), err=True) from error


def told_no(why: str, *, err: bool = False) -> typer.Exit:
    """The end of a command whose answer is no, once it has said why."""
    typer.echo(why, err=err)
    return typer.Exit(1)


def os_user() -> str:
    """The account that runs this process, as the system knows it: nothing here authenticates the person."""
    import pwd

    try:
        return f"os-user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:  # in a container an account needs no name
        return f"os-user:{os.getuid()}"
