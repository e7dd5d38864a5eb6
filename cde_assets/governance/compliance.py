"""The compliance report: the rulebook, rule by rule, on facts read from the artefacts."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from cde_assets.metadata import OWNERS, table
from cde_domain.decisions.engine import DecisionEngine
from cde_domain.decisions.policy import Policy
from cde_domain.digests import file_digest
from cde_domain.features.table import matrix_of
from cde_domain.governance import (
    alternatives_facts,
    data_facts,
    fairness_facts,
    inventory_facts,
    performance_facts,
    reason_facts,
    stress_facts,
    training_facts,
)
from cde_domain.governance.facts import Fact, counted
from cde_domain.governance.fairness import SMALL_BOOK
from cde_domain.governance.rulebook import FILE as RULEBOOK_FILE
from cde_domain.governance.rulebook import Rulebook, RulebookError
from cde_domain.governance.verdicts import OPEN, RuleResult, Status, evaluate
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio import Portfolio
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.attestations import RefusedAttestation, SignedAttestation, read_attestations
from cde_serving.ledger import LedgerEntry, LedgerError
from cde_serving.operation import Measured, OperationFactsError
from cde_serving.signing import SignatureError

GROUP = "governance"
SHOWN_PROMOTIONS = 5


@dg.asset(group_name=GROUP, owners=OWNERS, kinds={"json", "yaml"})
def compliance_report(
    context: dg.AssetExecutionContext,
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    challenger_model: dict[str, Any],
    evaluation: dict[str, Any],
    fairness_report: dict[str, Any],
    alternatives_search: dict[str, Any],
    explanation_report: dict[str, Any],
    loan_book: pd.DataFrame,
    feature_table: pd.DataFrame,
    training_set: pd.DataFrame,
    holdout_set: pd.DataFrame,
    out_of_fold_scores: pd.DataFrame,
) -> dict[str, Any]:
    """
    Every rule that binds this portfolio, with its status, the number it rests on and where the duty comes from.

    What is not measured yet, or cannot be with so little data, stays open and is never a pass.
    """
    lending = portfolio.load()
    policy = Policy.read(lending.policy_file)
    model = portfolio.scoring_model(challenger_model["digest"])
    training, holdout = matrix_of(lending, training_set), matrix_of(lending, holdout_set)
    rulebook, rulebook_sha256 = _rulebook()
    today = releases.now().date()
    operation = _operation(releases, rulebook)
    approvers, attested, refused = _attestations(releases, rulebook)
    ledger = releases.store().ledger.entries()
    reports = {
        "challenger_model": challenger_model,
        "evaluation": evaluation,
        "fairness_report": fairness_report,
        "alternatives_search": alternatives_search,
        "explanation_report": explanation_report,
    }
    facts = [
        *data_facts.application_facts(lending, model.feature_names),
        *data_facts.book_facts(lending, loan_book, feature_table),
        *data_facts.split_facts(training_set, holdout_set, portfolio.learned_from(challenger_model)),
        *_performance(lending, model, policy, evaluation, (training_set, holdout_set, out_of_fold_scores)),
        *training_facts.resampling_facts(challenger_model["training"]),
        *training_facts.benchmark_facts(evaluation["benchmarks"]),
        *stress_facts.edge_case_facts(lending.features, model, policy, holdout),
        *performance_facts.served_form_facts(lending.features, model, policy, training, holdout),
        *fairness_facts.fairness_facts(fairness_report, _basis(evaluation)["auc"]),
        *fairness_facts.blindness_facts(lending, model, policy, loan_book),
        *alternatives_facts.alternatives_facts(alternatives_search),
        *reason_facts.explanation_facts(explanation_report, model.calibrator.slope),
        *reason_facts.reason_facts(DecisionEngine(lending, model, policy), holdout),
        *inventory_facts.inventory_facts(lending, approvers, today),
        *inventory_facts.documentation_facts(lending, reports),
        *ledger_facts(ledger),
        *operation.facts(releases.now()),
    ]
    results = evaluate(
        rulebook,
        facts,
        lending.jurisdiction,
        thresholds=asdict(lending.thresholds),
        attestations=attested,
        today=today,
    )
    context.add_output_metadata(
        {
            **_metadata(results),
            "refused_attestations": "; ".join(f"{r.file}: {r.why}" for r in refused) or "none",
            "operation_entries": operation.mark.entries,
            "operation_head": operation.mark.head,
        }
    )
    return {
        "model_digest": challenger_model["digest"],
        "portfolio_code": portfolio.code_digest(),
        "jurisdiction": lending.jurisdiction,
        "rulebook": {
            "version": rulebook.version,
            "sha256": rulebook_sha256,
            "sources_checked_on": rulebook.sources_checked_on.isoformat(),
            "stale": rulebook.is_stale(today),
        },
        "rules": [result.as_json() for result in results],
        "refused_attestations": [asdict(file) for file in refused],
        "operation": [
            {
                "artefact": measured.artefact,
                "measured_at": f"{measured.measured_at:%Y-%m-%d %H:%M}",
                "bundle": measured.bundle,
                "facts": len(measured.facts),
            }
            for measured in operation.reports
        ],
        "operation_log": operation.mark.model_dump(),
        "reviewers": {
            "approvers": approvers,
            "attestations": [attestation.model_dump(mode="json") for attestation in attested],
            "promotions": [
                {
                    "at": entry.at[:10],
                    "bundle": entry.bundle,
                    "evidence": entry.evidence,
                    "approved_by": _approver(entry),
                }
                for entry in reversed(ledger)
                if entry.action == "promote"
            ][:SHOWN_PROMOTIONS],
        },
    }


def _approver(entry: LedgerEntry) -> str | None:
    return entry.details.get("approved_by")


def _rulebook() -> tuple[Rulebook, str]:
    """The rulebook with its file's SHA-256; its errors hold no personal values and are told in full."""
    try:
        return Rulebook.read(), file_digest(RULEBOOK_FILE)
    except RulebookError as error:
        raise dg.Failure(f"the rulebook cannot be used: {error}", allow_retries=False) from error


def _operation(releases: ReleasesResource, rulebook: Rulebook) -> Measured:
    """What was measured on the running service; a log that cannot be believed stops the report."""
    try:
        return releases.measured(rulebook)
    except (OperationFactsError, LedgerError) as error:
        raise dg.Failure(f"the facts of operation cannot be used: {error}", allow_retries=False) from error


def _attestations(
    releases: ReleasesResource, rulebook: Rulebook
) -> tuple[list[str], list[SignedAttestation], list[RefusedAttestation]]:
    """Who may approve and attest, the attestations that count, and those that do not."""
    try:
        approvers = releases.approvers()
    except SignatureError as error:
        raise dg.Failure(f"the approvers' keys cannot be used: {error}", allow_retries=False) from error
    counting, refused = read_attestations(
        releases.store().attestations,
        {rule.id for rule in rulebook.rules if rule.attestable},
        portfolio=releases.portfolio,
        approvers=approvers,
        platform=releases.platform_keys(),
        today=releases.now().date(),
    )
    return sorted(set(approvers.names.values())), counting, refused


def _basis(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Small books are judged on out-of-fold scores of all their loans, larger ones on the hold-out."""
    small = evaluation["cross_validation"]["rows"] < SMALL_BOOK
    measured: dict[str, Any] = evaluation["cross_validation" if small else "holdout"]
    return measured


def _performance(
    lending: Portfolio,
    model: ScoringModel,
    policy: Policy,
    evaluation: dict[str, Any],
    sets: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
) -> list[Fact]:
    training, holdout, out_of_fold = (
        (rows["repaid"].to_numpy(dtype=np.float64), scores)
        for rows, scores in (
            (sets[0], model.scores(matrix_of(lending, sets[0]))),
            (sets[1], model.scores(matrix_of(lending, sets[1]))),
            (sets[2], sets[2]["score"].to_numpy()),
        )
    )
    repaid, scores = out_of_fold if len(sets[2]) < SMALL_BOOK else holdout
    return [
        *performance_facts.ranking_facts(_basis(evaluation), evaluation["champion"]),
        *performance_facts.calibration_facts(scores, repaid, policy),
        *performance_facts.generalisation_facts(training, holdout),
    ]


def ledger_facts(entries: tuple[LedgerEntry, ...]) -> list[Fact]:
    """
    Promotions that were not made as the portfolio's setting of their time asked; nothing before the first.

    A portfolio on `automatic` may be promoted by a run; one on `approval_required` needs the name of who approved.
    """
    promotions = [entry for entry in entries if entry.action == "promote"]
    if not promotions:
        return []
    unauthorised = sum(
        not entry.details.get("approved_by")
        if entry.details.get("authority", "automatic") != "automatic"
        else not entry.by
        for entry in promotions
    )
    return counted("ledger.jsonl", {"promotions_without_configured_authority": unauthorised})


def _metadata(results: list[RuleResult]) -> dict[str, Any]:
    counts = Counter(result.status for result in results)
    rows = [
        {
            "rule": result.id,
            "title": result.title,
            "status": result.said,
            "number": result.number(),
            "threshold": "" if result.deciding is None else str(result.deciding.threshold),
            "severity": result.severity.value,
            "phase": result.phase.value,
            "legal status": result.legal_status.value,
            "source": result.sources[0],
        }
        for result in results
    ]
    return {
        "passed": float(counts[Status.PASS]),
        "failed": float(counts[Status.FAIL]),
        "warned": float(counts[Status.WARN]),
        "open": float(sum(counts[status] for status in OPEN)),
        **{status.value: float(counts[status]) for status in (*sorted(OPEN), Status.ATTESTED, Status.NOT_APPLICABLE)},
        "blocking_failures": float(sum(result.blocks for result in results)),
        "rules": table(rows),
    }
