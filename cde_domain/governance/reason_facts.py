"""Facts about explanations and reasons, read from the explanation report and audited on the applications rejected."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.engine import DecidedBy, DecisionEngine
from cde_domain.decisions.policy import Outcome
from cde_domain.governance.facts import MEASURED_HERE, Fact, counted, not_applicable
from cde_domain.governance.fairness import MIN_REPORTED, MIN_VERDICT
from cde_domain.governance.notices import strongest

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
            "notices_with_two_reasons_of_one_group": report["groups"]["notices_with_two_reasons_of_one_group"],
        },
    )
    if report["rejected"]:
        share = report["rejected_with_one_to_four_reasons"] / report["rejected"]
        facts += counted(ARTEFACT, {"share_adverse_with_1_to_4_reasons": share})
    else:
        facts.append(Fact("share_adverse_with_1_to_4_reasons", ARTEFACT, sufficient=False))
    return [*facts, *_faithfulness_facts(report["faithfulness"]), *_stability_facts(report)]


def _faithfulness_facts(measured: Mapping[str, Any]) -> list[Fact]:
    notices = measured["notices"]
    named = {
        "repair_rate": "repair_rate",
        "share_where_fixing_reasons_beats_random_features": "beats_random",
        "faithfulness_correlation_mean": "correlation",
    }
    if notices < MIN_REPORTED:
        return [Fact(metric, ARTEFACT, sufficient=False) for metric in named]
    return [_estimate(metric, measured, name, notices) for metric, name in named.items()]


def _stability_facts(report: Mapping[str, Any]) -> list[Fact]:
    notices, stability = report["notices"]["rows"], report["stability"]
    named = {
        "top4_overlap_between_two_baselines": (report["baselines"], "top4_jaccard"),
        "top4_jaccard_across_10_backgrounds": (stability.get("baselines"), "top4_jaccard"),
        "rank_corr_under_1pct_noise": (stability.get("noise"), "rank_correlation"),
    }
    if notices < MIN_REPORTED:
        return [Fact(metric, ARTEFACT, sufficient=False) for metric in named]
    return [_estimate(metric, measured, name, notices) for metric, (measured, name) in named.items()]


def _estimate(metric: str, measured: Mapping[str, Any], name: str, rows: int) -> Fact:
    value, interval = measured[name], measured[f"{name}_interval"]
    if value is None or interval is None:
        return Fact(metric, ARTEFACT, sufficient=False)
    return Fact(metric, ARTEFACT, value, (interval[0], interval[1]), sufficient=rows >= MIN_VERDICT)


def reason_facts(engine: DecisionEngine, matrix: Array) -> list[Fact]:
    """
    Decide the rejected rows of a (rows, features) matrix again, up to 500, and look at every reason given.

    The reasons are computed a second time from the contributions alone.
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
    baseline = np.array(model.reason_baseline)
    unused = favourable = matched = rejected = unnamed = 0
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
        matched += tuple(cited) == strongest(own, baseline)
    texts = [rule.reason for rule in engine.policy.rules] + [
        feature.reason_text(known=known) for feature in engine.portfolio.features for known in (True, False)
    ]
    facts = counted(
        MEASURED_HERE,
        {
            "banned_generic_reasons": sum(any(phrase in text.lower() for phrase in GENERIC) for text in texts),
            "knockouts_without_own_reason": unnamed,
            "reasons_on_unused_features": unused,
            "reasons_with_favourable_contribution": favourable,
        },
    )
    if not rejected:
        why = "the model rejects nobody here"
        return facts + not_applicable(MEASURED_HERE, why, ["recomputed_reason_match_rate"])
    return facts + counted(MEASURED_HERE, {"recomputed_reason_match_rate": matched / rejected})
