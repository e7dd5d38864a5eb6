"""The catalogue of reasons: every code that a rejection may bear, with the sentence that the applicant reads."""

from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.features.feature import Feature


def reason_catalogue(features: tuple[Feature, ...], policy: Policy) -> dict[str, str]:
    """The text of each reason by its code: of knock-out rules that reject, of features, and of features not known."""
    catalogue = {rule.code: rule.reason for rule in policy.rules if rule.decision == Outcome.REJECTED}
    for feature in features:
        for known in (True, False):
            catalogue.setdefault(feature.reason_code(known=known), feature.reason_text(known=known))
    return catalogue
