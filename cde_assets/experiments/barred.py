"""What is not tried again by itself: a challenger that was in an experiment, and a policy that a guardrail stopped."""

from cde_assets.experiments.truth import ended_by_guardrail
from cde_domain.digests import file_digest
from cde_domain.portfolio import Portfolio
from cde_domain.release import BundleError, verify_bundle
from cde_serving.experiments import ExperimentEntry
from cde_serving.releases import ReleaseStore

POLICY = "policy.yaml"


def tried(store: ReleaseStore, bundle: str) -> str | None:
    """Why this challenger is not for an experiment; None if it is."""
    champion = store.ledger.current()
    if champion is not None and champion.bundle == bundle:
        return "the latest challenger is the champion"
    entries = store.experiments.entries()
    for entry in entries:
        if entry.challenger is not None and entry.challenger.bundle == bundle:
            end = next((e for e in entries if e.experiment == entry.experiment and not e.running), entry)
            return (
                f"it was in {entry.experiment} before ({end.reason or 'stopped'}); start it again with cde experiment"
            )
    return None


def barred(store: ReleaseStore, lending: Portfolio) -> str | None:
    """
    Why the policy of the latest challenger, the portfolio's, comes to no customers without a person; None if it may.

    Retraining gives another bundle under the same policy, and with it the harm of that policy. One that the champion
    has too did no harm by itself. Where the bundle of what was stopped is not what was signed, nobody knows its policy,
    and a doubt is a no.
    """
    policy, champion = file_digest(lending.policy_file), store.ledger.current()
    if champion is not None and policy == _policy_of(store, champion.bundle):
        return None
    for entry in store.experiments.entries():
        if not ended_by_guardrail(entry):
            continue
        stopped = _policy_of(store, _bundle_of(entry))
        if stopped in (policy, None):
            has = "has" if stopped else f"may have, since bundle {_bundle_of(entry)[:12]} is damaged,"
            return (
                f"the latest challenger {has} the policy that a guardrail stopped in {entry.experiment} "
                f"({entry.reason}); a person can start it all the same: "
                "cde experiment start NAME --challenger latest --weight SHARE"
            )
    return None


def _bundle_of(entry: ExperimentEntry) -> str:
    return entry.challenger.bundle if entry.challenger else ""


def _policy_of(store: ReleaseStore, bundle: str) -> str | None:
    """The digest of a bundle's policy; None where the bundle is missing or damaged."""
    try:
        return str(verify_bundle(store.bundles / bundle, bundle)["files"][POLICY])
    except (BundleError, OSError, KeyError):
        return None
