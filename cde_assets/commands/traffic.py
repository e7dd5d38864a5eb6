"""`cde traffic`: simulated applicants against the running service, and what became of their loans."""

from typing import TYPE_CHECKING, Annotated

import typer

from cde_assets.commands.common import PortfolioArgument, choose, told_no

if TYPE_CHECKING:
    from cde_assets.traffic.session import Session

app = typer.Typer()


@app.command()
def traffic(
    portfolio: PortfolioArgument = None,
    rate: Annotated[int, typer.Option(min=1, max=100_000, help="Applications a day.")] = 100,
    days: Annotated[int, typer.Option(min=1, max=4_000, help="Days to play; more than one needs CDE_CLOCK_FILE.")] = 1,
    drift: Annotated[
        float, typer.Option(min=-3, max=3, help="Standard deviations by which the applicants have drifted.")
    ] = 0.0,
    outcomes: Annotated[
        bool, typer.Option("--outcomes", help="Return what became of granted loans, once it is known.")
    ] = False,
    outcomes_after: Annotated[
        int | None, typer.Option(min=0, max=4_000, help="Days until then; what the portfolio says, or a year.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and day are the same applicants.")] = 1,
    connections: Annotated[int, typer.Option(min=1, max=64, help="Requests at once.")] = 8,
    url: Annotated[str | None, typer.Option(help="The service; by default the one of this home.")] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="CDE_API_KEY", help="An API key that may score; without it one is made for this run."),
    ] = None,
) -> None:
    """
    Send simulated applicants to the running service, day by day, and later what became of their loans.

    Days pass on the injected clock: set CDE_CLOCK_FILE for the service too. Whatever breaks off is run again: the same
    seed and day send the same requests under the same idempotency keys, so that nothing is decided twice.
    """
    settings = choose(portfolio)
    if settings.clock_file is None and (days > 1 or outcomes):
        raise typer.BadParameter(
            "needs CDE_CLOCK_FILE, the same for this command and the service: outcomes of today's loans take a year",
            param_hint="--outcomes" if outcomes else "--days",
        )
    from cde_assets.traffic.applicants import ApplicantsError
    from cde_assets.traffic.service import TrafficError
    from cde_assets.traffic.session import Session
    from cde_domain.loan_book import LoanBookError
    from cde_serving.decision_log import LogUnavailableError

    try:
        session = Session.of(
            settings,
            seed=seed,
            drift=drift,
            outcomes=outcomes,
            outcomes_after=outcomes_after,
            connections=connections,
            url=url,
            key=key,
        )
    except ApplicantsError as error:
        raise typer.BadParameter(str(error), param_hint="--drift") from error
    except LoanBookError as error:
        raise told_no(f"Nothing was sent: {error}", err=True) from error
    try:
        session.play(days, rate)
    except (TrafficError, LogUnavailableError) as error:
        _tell(session)
        raise told_no(f"Broken off: {error}", err=True) from error
    except KeyboardInterrupt:
        _tell(session)
        raise told_no(
            "Stopped. Run it again with the same options to go on: nothing is decided twice.", err=True
        ) from None
    _tell(session)
    if session.tally.problems:
        raise typer.Exit(1)


def _tell(session: "Session") -> None:
    from rich.console import Console

    if session.tally.sent:
        Console(highlight=False).print(session.summary())
