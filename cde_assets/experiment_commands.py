"""What the commands of `cde experiment` do; each returns its exit status."""

from collections.abc import Callable

import typer

from cde_assets.demo import open_instance
from cde_checks.gate import Case, examine
from cde_checks.refusal import explained
from cde_domain.release import BundleError, write_bundle
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.evidence import EvidenceError, verify_pack
from cde_serving.experiments import ExperimentEntry, ExperimentError, Participant
from cde_serving.ledger import LedgerError
from cde_serving.releases import ReleaseStore
from cde_serving.settings import Settings
from cde_serving.signing import SignatureError

LATEST = "latest"


class ParticipantError(ValueError):
    """A bundle that may not take part."""


class _Entrants:
    """Who may take part: bundles that were promoted once, and the latest challenger as far as the gate lets it."""

    def __init__(self, settings: Settings, releases: ReleasesResource) -> None:
        self._settings = settings
        self._releases = releases
        self._store: ReleaseStore = releases.store()
        self._portfolio = PortfolioResource(reference=settings.portfolio, state=str(settings.home))
        self._case: Case | None = None

    def challenger(self, named: str) -> Participant:
        """
        The participant that may decide for customers.

        Raises:
            ParticipantError: the gate refuses it, or it is the champion.
        """
        champion = self._store.ledger.current()
        if champion is None:
            raise ParticipantError("nothing is promoted yet, so there is no champion to compare with")
        found = self._promoted(named) or self._latest(named, gated=True)
        if found.bundle == champion.bundle:
            raise ParticipantError(f"{found.bundle[:12]} is the champion")
        return found

    def shadow(self, named: str) -> Participant:
        """
        The participant that nobody is answered by: signed evidence about its model is enough.

        Raises:
            ParticipantError: there is none.
        """
        return self._promoted(named) or self._latest(named, gated=False)

    def _promoted(self, named: str) -> Participant | None:
        """A bundle that passed the gate when it was promoted, and is still what it was."""
        entries = [entry for entry in self._store.ledger.entries() if entry.action == "promote"]
        chosen = {entry.bundle: entry for entry in entries if named and entry.bundle.startswith(named)}
        if len(chosen) > 1:
            raise ParticipantError(f"{named!r} names several bundles: {', '.join(sorted(chosen))}")
        for entry in chosen.values():
            pack = verify_pack(self._store.evidence / entry.evidence, self._releases.trusted())
            if pack.digest != entry.evidence:
                raise ParticipantError(f"the evidence of {entry.bundle[:12]} is other evidence ({pack.digest[:12]})")
            self._store.load(entry)
            return Participant(bundle=entry.bundle, evidence=entry.evidence)
        return None

    def _latest(self, named: str, *, gated: bool) -> Participant:
        case = self._examined()
        if case.bundle is None or case.pack is None or (gated and case.refusals):
            raise ParticipantError(f"the latest challenger may not take part:\n{explained(case.refusals)}")
        if not named or (named != LATEST and not case.bundle.startswith(named)):
            raise ParticipantError(
                f"{named!r} names neither a bundle that was promoted nor the latest challenger, {case.bundle[:12]}"
            )
        served = self._portfolio.served_folder(case.pack.manifest.model_digest)
        written = write_bundle(self._store.bundles, self._portfolio.reference, self._portfolio.load(), served)
        if written.name != case.bundle:
            raise ParticipantError("the challenger's files were changed at this moment")
        return Participant(bundle=case.bundle, evidence=case.pack.digest)

    def _examined(self) -> Case:
        if self._case is None:
            with open_instance(self._settings) as instance:
                self._case = examine(instance, self._portfolio, self._releases)
        return self._case


def start(settings: Settings, name: str, challenger: str | None, weight: float, shadows: list[str], *, by: str) -> int:
    """Start an experiment with the named bundles."""
    releases = ReleasesResource.of(settings, settings.portfolio_name())

    def started() -> ExperimentEntry:
        entrants = _Entrants(settings, releases)
        return releases.store().experiments.start(
            name,
            portfolio=releases.portfolio,
            challenger=entrants.challenger(challenger) if challenger is not None else None,
            weight=weight,
            shadows=tuple(entrants.shadow(shadow) for shadow in shadows),
            by=by,
            key=releases.signer(),
        )

    return _signed(started)


def change_weight(settings: Settings, weight: float, *, by: str, reason: str) -> int:
    """Change the weight of the running experiment."""
    releases = ReleasesResource.of(settings, settings.portfolio_name())
    experiments = releases.store().experiments
    return _signed(lambda: experiments.change_weight(weight, by=by, key=releases.signer(), reason=reason))


def stop(settings: Settings, *, by: str, reason: str) -> int:
    """End the running experiment."""
    releases = ReleasesResource.of(settings, settings.portfolio_name())
    experiments = releases.store().experiments
    return _signed(lambda: experiments.stop(by=by, key=releases.signer(), reason=reason))


def show(settings: Settings) -> int:
    """Show the running experiment."""
    store = ReleasesResource.of(settings, settings.portfolio_name()).store()
    try:
        current = store.experiments.current()
    except ExperimentError as error:
        typer.echo(f"The champion decides alone: {error}")
        return 1
    if current is None:
        typer.echo("No experiment runs: the champion decides alone.")
        return 1
    _tell(current)
    return 0


def _signed(append: Callable[[], ExperimentEntry]) -> int:
    try:
        entry = append()
    except (ParticipantError, ExperimentError, EvidenceError, BundleError, LedgerError, SignatureError) as error:
        typer.echo(f"Nothing was changed: {error}")
        return 1
    if entry.running:
        _tell(entry)
    else:
        typer.echo(f"{entry.experiment} is stopped: the champion decides alone.")
    return 0


def _tell(entry: ExperimentEntry) -> None:
    typer.echo(f"{entry.experiment}, since {entry.at} by {entry.by}:")
    if entry.challenger:
        typer.echo(f"  challenger {entry.challenger.bundle[:12]} decides for {entry.weight:.1%} of customers")
    for shadow in entry.shadows:
        typer.echo(f"  shadow     {shadow.bundle[:12]} decides without being answered")
