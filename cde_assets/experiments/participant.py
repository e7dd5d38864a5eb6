"""The latest challenger as a participant of an experiment."""

from cde_checks.gate import Case
from cde_domain.release import write_bundle
from cde_resources.portfolio import PortfolioResource
from cde_serving.evidence import Pack
from cde_serving.experiments import ExperimentError, Participant
from cde_serving.releases import ReleaseStore


class ParticipantError(ExperimentError):
    """A bundle that may not take part."""


def participant_of(case: Case, pack: Pack, portfolio: PortfolioResource, store: ReleaseStore) -> Participant:
    """
    The latest challenger as a participant, its bundle written.

    Raises:
        ParticipantError: its files are not those that the gate saw.
    """
    served = portfolio.served_folder(pack.manifest.model_digest)
    written = write_bundle(store.bundles, portfolio.reference, portfolio.load(), served)
    if written.name != case.bundle:
        raise ParticipantError("the challenger's files were changed at this moment")
    return Participant(bundle=written.name, evidence=pack.digest)
