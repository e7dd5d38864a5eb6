"""Statements about fairness, explanations and the card."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from cde_checks.card_comparison import differences, strange_numbers
from cde_domain.decisions.policy import Policy
from cde_domain.governance.alternatives import Finding
from cde_domain.governance.card import (
    OF_A_MODEL,
    REPORTS,
    ModelCard,
    Picture,
    book_facts,
    card_facts,
    empty_headings,
    render,
)
from cde_domain.governance.fairness import Verdict
from cde_domain.governance.verdicts import OPEN, Status
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.evidence import EvidenceError, verify_pack

ADDITIVITY = 1e-9
MIN_REPAIR_RATE = 0.95
MOST_TOLD = 5
TEMPLATES = Path(str(files("cde_assets.governance")))  # the card is made above this layer, from these templates
MIN_OVERLAP = 0.8
MIN_OVERLAP_OF_BASELINES = 0.7


@dg.asset_check(asset="fairness_report", blocking=True)
def four_fifths_holds(fairness_report: dict[str, Any]) -> dg.AssetCheckResult:
    """
    No group of a gating attribute is approved at less than four fifths of the reference group's rate.

    Groups too small for a verdict do not fail, and they do not pass either: they are listed as insufficient data.
    """
    groups = [(result["use"], group) for result in fairness_report["attributes"] for group in result["groups"]]
    failed = [group for use, group in groups if use == "gate" and group["verdict"] == Verdict.FAIL]
    undecided = [
        f"{group['attribute']}={group['group']}"
        for _, group in groups
        if group["verdict"] in (Verdict.INSUFFICIENT_DATA, Verdict.NOT_COMPUTED)
    ]
    # A gated attribute of one group alone has nothing to compare, which is no pass either.
    undecided += [
        result["attribute"]
        for result in fairness_report["attributes"]
        if result["verdict"] == Verdict.INSUFFICIENT_DATA
        and not any(entry.startswith(f"{result['attribute']}=") for entry in undecided)
    ]
    ratios = [group["impact_ratio"] for use, group in groups if use == "gate" and group["impact_ratio"] is not None]
    if not groups:
        return dg.AssetCheckResult(
            passed=True, description="not applicable: the book has no protected attribute", metadata={"groups": 0}
        )
    said = [
        f"{g['attribute']}={g['group']} is approved at {g['impact_ratio']:.2f} of the reference rate" for g in failed
    ]
    return dg.AssetCheckResult(
        passed=not failed,
        description="; ".join(said) or (f"insufficient data: {', '.join(undecided)}" if undecided else None),
        metadata={
            "limit": fairness_report["min_ratio"],
            "failed_groups": len(failed),
            "insufficient_data": ", ".join(undecided) or "none",
            **({"smallest_gated_ratio": min(ratios)} if ratios else {}),
        },
    )


@dg.asset_check(asset="alternatives_search")
def alternative_is_considered(alternatives_search: dict[str, Any]) -> dg.AssetCheckResult:
    """
    Enough other models were tried, and one that treats groups more alike is adopted or declined by a named person.

    Advice, as its rule (FAIR-08) is; a search that the data leave open does not fail, and it does not pass for one.
    """
    finding, tried, least = (alternatives_search[name] for name in ("finding", "n_candidates", "min_candidates"))
    unanswered = alternatives_search["unanswered"]
    considered = finding == Finding.NOT_APPLICABLE or (tried >= least and not unanswered)
    said = f"{finding.replace('_', ' ')}: {alternatives_search['reason']}"
    if finding != Finding.NOT_APPLICABLE and tried < least:
        said = f"only {tried} of {least} candidates were tried: {alternatives_search['reason']}"
    elif unanswered:
        said = f"adopt one, or decline each in declined_alternatives: {'; '.join(unanswered[:3])}"
    return dg.AssetCheckResult(
        passed=considered,
        severity=dg.AssetCheckSeverity.WARN,
        description=said,
        metadata={"finding": finding, "candidates": tried, "unanswered": len(unanswered)},
    )


@dg.asset_check(asset="latency_report", blocking=True)
def serving_budget_holds(latency_report: dict[str, Any]) -> dg.AssetCheckResult:
    """One explained decision takes no longer in process than the portfolio allows."""
    taken, budget = latency_report["decision_p50_ms"], latency_report["budget_p50_ms"]
    passed = bool(taken <= budget)
    return dg.AssetCheckResult(
        passed=passed,
        description=None if passed else f"half of the decisions take longer than {taken:.2f} ms, {budget} are allowed",
        metadata={"decision_p50_ms": taken, "decision_p99_ms": latency_report["decision_p99_ms"], "budget_ms": budget},
    )


@dg.asset_check(asset="explanation_report", blocking=True)
def reasons_are_complete_and_faithful(explanation_report: dict[str, Any]) -> dg.AssetCheckResult:
    """
    Contributions add up, every rejection has one to four catalogued reasons, and mending the reasons helps.

    No reason of a rejection speaks for the applicant.
    """
    facts, repair_rate = explanation_report, explanation_report["faithfulness"]["repair_rate"]
    problems = []
    if facts["additivity_error"] > ADDITIVITY:
        problems.append(f"contributions miss the margin by {facts['additivity_error']:.1e}")
    for name, what in (
        ("rejected_with_one_to_four_reasons", "without one to four reasons"),
        ("rejected_with_catalogued_reasons", "with a reason outside the catalogue"),
    ):
        if facts[name] != facts["rejected"]:
            problems.append(f"{facts['rejected'] - facts[name]} rejections {what}")
    if favourable := facts["notices"]["reasons_with_favourable_contribution"]:
        problems.append(f"{favourable} reasons speak for the applicant")
    if repair_rate is not None and repair_rate < MIN_REPAIR_RATE:
        problems.append(f"mending the reasons helps only {repair_rate:.0%} of those not approved")
    metadata: dict[str, Any] = {"additivity_error": facts["additivity_error"], "rejected": facts["rejected"]}
    if repair_rate is not None:
        metadata |= {"repair_rate": repair_rate, "mean_gain": facts["faithfulness"]["mean_gain"]}
    return dg.AssetCheckResult(passed=not problems, description="; ".join(problems) or None, metadata=metadata)


@dg.asset_check(asset="explanation_report")
def reasons_are_stable(explanation_report: dict[str, Any]) -> dg.AssetCheckResult:
    """
    Advice: reasons stay when numbers move by 1 %, when others had just passed, and against all applicants.

    LIME's agreement with the exact contributions is shown beside them and decides nothing.
    """
    if not explanation_report["notices"]["rows"]:
        return dg.AssetCheckResult(passed=True, description="not applicable: the model turned nobody away")
    stability, lime = explanation_report["stability"], explanation_report["lime"]
    measured = {
        "under_noise": (stability["noise"]["top4_jaccard"], MIN_OVERLAP),
        "across_baselines": (stability["baselines"]["top4_jaccard"], MIN_OVERLAP),
        "against_all_applicants": (explanation_report["baselines"]["top4_jaccard"], MIN_OVERLAP_OF_BASELINES),
    }
    problems = [
        f"reasons overlap {name.replace('_', ' ')} by {overlap:.2f}, {least} is asked"
        for name, (overlap, least) in measured.items()
        if overlap < least
    ]
    doubled = explanation_report["groups"]["notices_with_two_reasons_of_one_group"]
    remarks = [f"{doubled} notices have two reasons of one group of features"] if doubled else []
    return dg.AssetCheckResult(
        passed=not problems,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(problems + remarks) or None,
        metadata={
            **{name: overlap for name, (overlap, _) in measured.items()},
            "decisions_changed_by_noise": stability["noise"]["decisions_changed"],
            "notices_with_two_reasons_of_one_group": doubled,
            "lime_rank_correlation": lime["rank_correlation"],
            "lime_own_overlap_over_seeds": lime["own_top4_jaccard"],
        },
    )


@dg.asset_check(asset="explanation_report")
def recourse_is_approved(explanation_report: dict[str, Any]) -> dg.AssetCheckResult:
    """Advice: every change that a declined applicant would be told leads to an approval by the engine itself."""
    recourse = explanation_report["recourse"]
    false = recourse["with_recourse"] - recourse["valid"]
    return dg.AssetCheckResult(
        passed=false == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{false} of {recourse['with_recourse']} would not be approved" if false else None,
        metadata={"declined": recourse["declined"], "with_recourse": recourse["with_recourse"]},
    )


@dg.asset_check(asset="compliance_report", blocking=True)
def rulebook_passes(compliance_report: dict[str, Any]) -> dg.AssetCheckResult:
    """
    No blocking rule failed, of those decided before a promotion and of those measured in operation.

    Open rules (too little data, not measured yet) do not fail, and they do not pass either: they are counted.
    """
    rules = compliance_report["rules"]
    failed = [rule for rule in rules if rule["blocks"]]
    noted = [rule for rule in rules if rule["status"] in (Status.FAIL, Status.WARN) and not rule["blocks"]]
    still_open = [rule for rule in rules if rule["status"] in OPEN]
    said = [f"{rule['id']} {rule['title']}: {rule['number']}" for rule in failed]
    remarks = [f"{len(still_open)} rules open"] if still_open else []
    remarks += [f"{rule['id']} {rule['status']}" for rule in noted]
    return dg.AssetCheckResult(
        passed=not failed,
        description="; ".join(said) or ", ".join(remarks) or None,
        metadata={
            "blocking_failures": len(failed),
            "other_failures_and_warnings": ", ".join(rule["id"] for rule in noted) or "none",
            "open": ", ".join(rule["id"] for rule in still_open) or "none",
            "jurisdiction": compliance_report["jurisdiction"],
        },
    )


@dg.asset_check(
    asset="model_card",
    blocking=True,
    additional_ins={name: dg.AssetIn() for name in (*REPORTS, "loan_book")},
)
def card_agrees_with_the_evidence(
    portfolio: PortfolioResource,
    model_card: dict[str, Any],
    candidate_models: dict[str, Any],
    challenger_model: dict[str, Any],
    evaluation: dict[str, Any],
    fairness_report: dict[str, Any],
    alternatives_search: dict[str, Any],
    explanation_report: dict[str, Any],
    latency_report: dict[str, Any],
    compliance_report: dict[str, Any],
    loan_book: pd.DataFrame,
) -> dg.AssetCheckResult:
    """
    Every form of the card says what the reports say, and nothing else.

    The card is made again from the reports and compared whole; each printed number is also held against the value that
    it names as its source. The files beside the model are the card's, and no required section is empty.
    """
    reports = {
        "candidate_models": candidate_models,
        "challenger_model": challenger_model,
        "evaluation": evaluation,
        "fairness_report": fairness_report,
        "alternatives_search": alternatives_search,
        "explanation_report": explanation_report,
        "latency_report": latency_report,
        "compliance_report": compliance_report,
    }
    lending, digest = portfolio.load(), model_card["model_digest"]
    facts = card_facts(lending, Policy.read(lending.policy_file), book_facts(loan_book), reports)
    pictures = {name: Picture(**picture) for name, picture in model_card["pictures"].items()}
    given = ModelCard(model_card["markdown"], model_card["html"], model_card["data"])
    strangers = [name for name, report in reports.items() if digest not in _models_of(report) and name in OF_A_MODEL]
    folder = portfolio.models / digest
    problems = [
        *(f"{name} is about another model" for name in strangers),
        *differences(given, render(facts, pictures, TEMPLATES)),
        *strange_numbers(given, facts),
        *(f"the section {heading} is empty" for heading in empty_headings(given.markdown)),
        *(
            f"{name} beside the model is not the card's"
            for name, content in given.files().items()
            if not (folder / name).is_file() or (folder / name).read_bytes() != content
        ),
    ]
    return dg.AssetCheckResult(
        passed=not problems,
        description="; ".join(problems[:MOST_TOLD]) or None,
        metadata={"numbers": len(given.data.get("numbers", ())), "disagreements": len(problems)},
    )


@dg.asset_check(asset="evidence_pack", blocking=True)
def pack_verifies(releases: ReleasesResource, evidence_pack: dict[str, Any]) -> dg.AssetCheckResult:
    """The pack is signed, no file in it was changed, added or removed, and every report is about its model."""
    try:
        pack = verify_pack(releases.store().evidence / evidence_pack["digest"], releases.trusted())
    except EvidenceError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    digest = pack.manifest.model_digest
    strangers = [
        file.asset
        for file in pack.manifest.files
        if file.path.startswith("reports/") and digest not in _models_of(pack.report(file.path))
    ]
    if pack.digest != evidence_pack["digest"]:
        strangers.append("manifest.json")
    return dg.AssetCheckResult(
        passed=not strangers,
        description=f"not about model {digest[:12]}: {', '.join(strangers)}" if strangers else None,
        metadata={"files": len(pack.manifest.files), "checks": len(pack.checks), "evidence": pack.digest},
    )


def _models_of(report: dict[str, Any]) -> set[Any]:
    return {report.get("model_digest"), report.get("digest")}
