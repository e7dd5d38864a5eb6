"""Who may take part in an experiment, beside the champion."""

from cde_assets.demo import open_instance
from cde_assets.experiments.participant import ParticipantError, participant_of
from cde_checks.gate import Case, examine
from cde_checks.refusal import explained
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.evidence import verify_pack
from cde_serving.experiments import Participant
from cde_serving.releases import ReleaseStore
from cde_serving.settings import Settings

LATEST = "latest"


class Entrants:
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
        return participant_of(case, case.pack, self._portfolio, self._store)

    def _examined(self) -> Case:
        if self._case is None:
            with open_instance(self._settings) as instance:
                self._case = examine(instance, self._portfolio, self._releases)
        return self._case
