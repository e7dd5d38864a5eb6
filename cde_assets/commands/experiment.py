"""`cde experiment`: a challenger decides for a share of the customers, or shadows."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cde_assets.commands.common import PortfolioOption, choose, os_user, told_no

if TYPE_CHECKING:
    from cde_resources.releases import ReleasesResource
    from cde_serving.experiments import ExperimentEntry
    from cde_serving.settings import Settings

app = typer.Typer(name="experiment", no_args_is_help=True, help="Let a challenger decide for a share of the customers.")

ReasonOption = Annotated[str, typer.Option(help="Why, for the log.")]


@app.command()
def start(
    name: Annotated[str, typer.Argument(help="Its name, which draws the customers and is used once.")],
    challenger: Annotated[
        str | None, typer.Option(help="A bundle that was promoted before, by digest, or `latest`: the challenger.")
    ] = None,
    weight: Annotated[float, typer.Option(min=0.0, max=1.0, help="The share of customers it decides for.")] = 0.0,
    shadow: Annotated[
        list[str] | None, typer.Option(help="A bundle that decides without being answered; several may be named.")
    ] = None,
    portfolio: PortfolioOption = None,
) -> None:
    """Start an experiment; a challenger needs all that a promotion needs, a shadow signed evidence about its model."""
    settings = choose(portfolio)
    from cde_assets.participants import Entrants
    from cde_resources.releases import ReleasesResource

    releases = ReleasesResource.of(settings, settings.portfolio_name())

    def started() -> "ExperimentEntry":
        entrants = Entrants(settings, releases)
        champion = releases.store().ledger.current()
        participant = entrants.challenger(challenger) if challenger is not None else None
        if participant is not None:
            typer.echo(_planned(settings, releases, participant.evidence, weight))
        return releases.store().experiments.start(
            name,
            portfolio=releases.portfolio,
            challenger=participant,
            weight=weight,
            shadows=tuple(entrants.shadow(one) for one in shadow or []),
            by=os_user(),
            key=releases.signer(),
            compared_with=champion.sequence if champion else None,
        )

    _tell_signed(started)


@app.command("weight")
def change_weight(
    weight: Annotated[float, typer.Argument(min=0.0, max=1.0, help="The share of customers, e.g. 0.25.")],
    portfolio: PortfolioOption = None,
    reason: ReasonOption = "",
) -> None:
    """Let the challenger decide for another share of the customers; services follow within two seconds."""
    settings = choose(portfolio)
    from cde_resources.releases import ReleasesResource

    releases = ReleasesResource.of(settings, settings.portfolio_name())
    experiments = releases.store().experiments
    _tell_signed(lambda: experiments.change_weight(weight, by=os_user(), key=releases.signer(), reason=reason))


@app.command()
def stop(portfolio: PortfolioOption = None, reason: ReasonOption = "") -> None:
    """End the experiment: the champion decides alone again."""
    settings = choose(portfolio)
    from cde_resources.releases import ReleasesResource

    releases = ReleasesResource.of(settings, settings.portfolio_name())
    experiments = releases.store().experiments
    _tell_signed(lambda: experiments.stop(by=os_user(), key=releases.signer(), reason=reason))


@app.command()
def show(portfolio: PortfolioOption = None) -> None:
    """Show which experiment runs; exit status 1 if none does."""
    settings = choose(portfolio)
    from cde_resources.releases import ReleasesResource
    from cde_serving.experiments import ExperimentError

    store = ReleasesResource.of(settings, settings.portfolio_name()).store()
    try:
        current = store.experiments.current()
    except ExperimentError as error:
        raise told_no(f"The champion decides alone: {error}") from error
    if current is None:
        raise told_no("No experiment runs: the champion decides alone.")
    _tell(current)


def _planned(settings: "Settings", releases: "ReleasesResource", evidence: str, weight: float) -> str:
    """How many customers the experiment needs; a plan that cannot be made keeps nothing from starting."""
    from cde_assets.experiments.planning import planned, told
    from cde_resources.portfolio import PortfolioResource
    from cde_serving.evidence import verify_pack

    if not 0 < weight < 1:
        return f"No plan: nobody is drawn at a weight of {weight:.0%}."
    clock = str(settings.clock_file) if settings.clock_file else None
    portfolio = PortfolioResource(reference=settings.portfolio, state=str(settings.home), clock_file=clock)
    try:
        return told(planned(portfolio, verify_pack(releases.store().evidence / evidence, releases.trusted()), weight))
    except (OSError, ValueError, KeyError) as error:
        return f"No plan: {error}"


def _tell_signed(append: Callable[[], "ExperimentEntry"]) -> None:
    from cde_domain.release import BundleError
    from cde_serving.evidence import EvidenceError
    from cde_serving.experiments import ExperimentError
    from cde_serving.ledger import LedgerError
    from cde_serving.signing import SignatureError

    try:
        entry = append()
    except (ExperimentError, EvidenceError, BundleError, LedgerError, SignatureError) as error:
        raise told_no(f"Nothing was changed: {error}") from error
    if entry.running:
        _tell(entry)
    else:
        typer.echo(f"{entry.experiment} is stopped: the champion decides alone.")


def _tell(entry: "ExperimentEntry") -> None:
    typer.echo(f"{entry.experiment}, since {entry.at} by {entry.by}:")
    if entry.challenger:
        typer.echo(f"  challenger {entry.challenger.bundle[:12]} decides for {entry.weight:.1%} of customers")
    for shadow in entry.shadows:
        typer.echo(f"  shadow     {shadow.bundle[:12]} decides without being answered")
