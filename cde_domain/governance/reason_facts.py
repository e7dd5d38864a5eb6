"""Facts about explanations and reasons, read from the explanation report and audited on the applications rejected."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.engine import MAX_REASONS, DecidedBy, DecisionEngine
from cde_domain.decisions.policy import Outcome
from cde_domain.governance.facts import Fact, counted, not_applicable

Array = NDArray[np.float64]

ARTEFACT = "explanation_report.json"
AUDITED = 500
# 12 CFR 1002.9(b)(2): "internal standards or policies" and "failed to achieve a qualifying score" are insufficient.
GENERIC = (
    "internal standard",
    "internal polic",
    "our polic",
    "qualifying score",
    "score is too low",
    "failed to qualify",
)


def explanation_facts(report: Mapping[str, Any], slope: float) -> list[Fact]:
    """What the explanation report says; `slope` is the calibrator's, positive where the margin raises the score."""
    facts = counted(
        ARTEFACT,
        {
            "additivity_error": report["additivity_error"],
            "sign_convention": "positive_raises_repayment" if slope > 0 else "positive_lowers_repayment",
            "reasons_not_in_catalogue": report["rejected"] - report["rejected_with_catalogued_reasons"],
        },
    )
    if not report["rejected"]:
        return [
            *facts,
            Fact("share_adverse_with_1_to_4_reasons", ARTEFACT, sufficient=False),
            Fact("repair_rate", ARTEFACT, sufficient=False),
        ]
    share = report["rejected_with_one_to_four_reasons"] / report["rejected"]
    facts += counted(ARTEFACT, {"share_adverse_with_1_to_4_reasons": share})
    repaired = report["repair_rate"]
    return [*facts, Fact("repair_rate", ARTEFACT, repaired, sufficient=repaired is not None)]


def reason_facts(engine: DecisionEngine, matrix: Array) -> list[Fact]:
    """
    Decide the rejected rows of a (rows, features) matrix again, up to 500, and look at every reason given.

    The reasons are computed a second time from the contributions alone, and once more against all applicants instead of
    those who just passed (12 CFR 1002.9(b)(2), comment 5 names both).
    """
    model = engine.model
    margins, contributions = model.trees.explain(matrix)
    low = np.flatnonzero(model.calibrator.scores(margins) < engine.policy.review_at)
    used = np.abs(contributions).max(axis=0) > 0
    positions = {
        feature.reason_code(known=known): position
        for position, feature in enumerate(engine.portfolio.features)
        for known in (True, False)
    }
    everybody, baseline = contributions.mean(axis=0), np.array(model.reason_baseline)
    unused = favourable = matched = rejected = unnamed = 0
    overlaps: list[float] = []
    rules = {rule.code for rule in engine.policy.rules}
    for row in low[:AUDITED]:
        decision = engine.decide_features(matrix[row : row + 1])
        if decision.decision is not Outcome.REJECTED:
            continue
        if decision.decided_by is DecidedBy.RULE:
            unnamed += not rules.issuperset(decision.reason_codes)
            continue
        rejected += 1
        cited = [positions[code] for code in decision.reason_codes if code in positions]
        own = contributions[row]
        unused += int((~used[cited]).sum())
        favourable += int((own[cited] >= 0).sum())
        matched += cited == _strongest(own, baseline)
        other = _strongest(own, everybody)
        overlaps.append(len(set(cited) & set(other)) / max(len(cited), len(other), 1))
    texts = [rule.reason for rule in engine.policy.rules] + [
        feature.reason_text(known=known) for feature in engine.portfolio.features for known in (True, False)
    ]
    facts = counted(
        "challenger_model.json",
        {
            "banned_generic_reasons": sum(any(phrase in text.lower() for phrase in GENERIC) for text in texts),
            "knockouts_without_own_reason": unnamed,
            "reasons_on_unused_features": unused,
            "reasons_with_favourable_contribution": favourable,
        },
    )
    if not rejected:
        why = "the model rejects nobody here"
        shares = ["recomputed_reason_match_rate", "top4_overlap_between_two_baselines"]
        return facts + not_applicable("challenger_model.json", why, shares)
    return facts + counted(
        "challenger_model.json",
        {
            "recomputed_reason_match_rate": matched / rejected,
            "top4_overlap_between_two_baselines": float(np.mean(overlaps)),
        },
    )


def _strongest(contributions: Array, baseline: Array) -> list[int]:
    """The features that hold an applicant back most against a baseline, at most four, worst first."""
    shortfall = contributions - baseline
    against = [int(p) for p in np.argsort(shortfall, kind="stable") if shortfall[p] < 0]
    own = [position for position in against if contributions[position] < 0]
    return (own or against)[:MAX_REASONS]
