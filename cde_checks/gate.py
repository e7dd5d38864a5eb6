"""The gate: is there proof that exactly what is to be promoted passed every statement?

A blocking check stops what follows only within its own run; a champion materialised alone would slip past it. So the
gate asks the event log itself, for the materialisations that the challenger and its reports were made from, and the
signed evidence pack of just these materialisations, and a person's approval where the portfolio wants one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from cde_checks.judgement import (
    EVIDENCE,
    REPORTS,
    RERUN,
    judged,
    latest_metadata,
    log_refusals,
    metadata_of,
    required_checks,
)
from cde_checks.refusal import Refusal
from cde_domain.digests import file_digest
from cde_domain.governance.card import FILES as CARD_FILES
from cde_domain.governance.facts import FactError
from cde_domain.governance.rulebook import FILE as RULEBOOK_FILE
from cde_domain.governance.rulebook import Phase, Rulebook, RulebookError
from cde_domain.governance.verdicts import evaluate
from cde_domain.portfolio import Portfolio
from cde_domain.release import BundleError, bundle_digest, verify_bundle
from cde_resources.portfolio import PortfolioResource
from cde_resources.releases import ReleasesResource
from cde_serving.approvals import Approval, ApprovalError, read_approval
from cde_serving.evidence import EvidenceError, Materialisation, Pack, verify_pack
from cde_serving.ledger import LedgerError, conflict
from cde_serving.operation import Mark, OperationFactsError
from cde_serving.signing import SignatureError

SEEN_REPORTS = 100  # compliance reports whose mark of the log of operation is asked for

RECOMPARE = "Run train_and_release again, so that it is compared with today's champion"


@dataclass
class Case:
    """
    Everything that speaks for and against promoting the latest challenger.

    `bundle` is the digest of the bundle that its promotion makes current.
    """

    refusals: list[Refusal] = field(default_factory=list)
    pack: Pack | None = None
    approval: Approval | None = None
    operation: Mark | None = None
    bundle: str | None = None

    @property
    def compared_with(self) -> int | None:
        """The number of the ledger's last entry when the challenger was compared with the champion; 0: none."""
        compared: int | None = self.pack.report("reports/evaluation.json").get("ledger_entry") if self.pack else None
        return compared


def refusals(instance: dg.DagsterInstance, portfolio: PortfolioResource, releases: ReleasesResource) -> list[Refusal]:
    """Why the latest challenger of a portfolio cannot be promoted; empty if it can."""
    return examine(instance, portfolio, releases).refusals


def examine(instance: dg.DagsterInstance, portfolio: PortfolioResource, releases: ReleasesResource) -> Case:
    """Everything that speaks for and against promoting the latest challenger of a portfolio."""
    case = Case()
    lending = portfolio.load()
    judgement = judged(instance, lending.name, (*REPORTS, EVIDENCE))
    case.refusals += log_refusals(instance, lending.name, judgement)
    if not judgement.made_from:
        return case
    if not judgement.problems:
        _examine_artefacts(case, portfolio, judgement.made_from)
        _examine_evidence(case, instance, portfolio, releases, judgement.made_from)
    if case.pack:
        _examine_model(case, case.pack, portfolio, releases)
    _examine_operation(case, instance, lending, releases)
    _examine_ledger(case, instance, releases)
    return case


_REPACK = "Materialise evidence_pack again"


def _examine_artefacts(case: Case, portfolio: PortfolioResource, made_from: Mapping[str, Materialisation]) -> None:
    """Refuse reports whose files are no longer those that were written; all others are read before the reports."""
    for name in (*REPORTS, EVIDENCE):
        path = portfolio.artefacts / f"{name}.json"
        if name in made_from and not _is_file_of(path, made_from[name].sha256):
            reason = f"{path.name} is not the file that it was materialised as"
            case.refusals.append(Refusal(name, reason, _REPACK if name == EVIDENCE else RERUN))


def _is_file_of(path: Path, sha256: str | None) -> bool:
    return path.is_file() and file_digest(path) == sha256


def _examine_model(case: Case, pack: Pack, portfolio: PortfolioResource, releases: ReleasesResource) -> None:
    """Refuse a model whose forms, card or bundle are not those that were judged."""
    challenger, digest = pack.report("reports/challenger_model.json"), pack.manifest.model_digest
    packed = {file.path: file.sha256 for file in pack.manifest.files}
    for name in CARD_FILES.values():
        if not _is_file_of(portfolio.models / digest / name, packed[name]):
            reason = f"{name} beside the model is not the one in the evidence"
            remedy = "Materialise model_card and evidence_pack again"
            case.refusals.append(Refusal("model_card", reason, remedy))
    try:
        portfolio.library_file(digest, challenger["library"])
        portfolio.stored_file(digest, challenger["learned_from"], "the list of loans")
        served = portfolio.served_folder(digest)
    except dg.Failure as failure:
        case.refusals.append(Refusal("challenger_model", str(failure.description), RERUN))
        return
    case.bundle = bundle_digest(portfolio.reference, portfolio.load(), served)
    bundle = releases.store().bundles / case.bundle
    if bundle.exists():
        try:
            verify_bundle(bundle, case.bundle)
        except BundleError as error:
            case.refusals.append(Refusal("bundle", str(error), f"Remove {bundle}, which is written anew"))


def _examine_evidence(
    case: Case,
    instance: dg.DagsterInstance,
    portfolio: PortfolioResource,
    releases: ReleasesResource,
    made_from: Mapping[str, Materialisation],
) -> None:
    lending = portfolio.load()

    def metadata(asset: str) -> Mapping[str, Any]:
        return metadata_of(instance, dg.AssetKey([lending.name, asset]), made_from[asset].storage_id)

    digest = str(metadata(EVIDENCE)["evidence"])
    try:
        pack = verify_pack(releases.store().evidence / digest, releases.trusted())
    except (EvidenceError, SignatureError) as error:
        case.refusals.append(Refusal(EVIDENCE, str(error), _REPACK))
        return
    asked = str(metadata("challenger_model")["model_digest"])
    found = list(_pack_refusals(pack, digest, lending.name, asked, made_from))
    if pack.manifest.portfolio_code != portfolio.code_digest():
        found.append(Refusal(EVIDENCE, "the portfolio's code or policy was changed since it was judged", RERUN))
    judged_by = pack.report("reports/compliance_report.json")["rulebook"].get("sha256")
    if not _is_file_of(RULEBOOK_FILE, judged_by):
        found.append(Refusal("compliance_report", "the rulebook was changed since it was judged", RERUN))
    refused = {refusal.subject for refusal in case.refusals}
    case.refusals += [refusal for refusal in found if refusal.subject not in refused]
    if found:
        return
    case.pack = pack
    if lending.promotion == "approval_required":
        _examine_approval(case, pack, releases)


def _pack_refusals(
    pack: Pack, digest: str, portfolio: str, model_digest: str, made_from: Mapping[str, Materialisation]
) -> Iterable[Refusal]:
    manifest = pack.manifest
    if pack.digest != digest:
        yield Refusal(EVIDENCE, f"its folder holds other evidence ({pack.digest[:12]})", _REPACK)
    if manifest.portfolio != portfolio:
        yield Refusal(EVIDENCE, f"is about {manifest.portfolio}", _REPACK)
    if manifest.model_digest != model_digest:
        reason = f"is about model {manifest.model_digest[:12]}, but the challenger is {model_digest[:12]}"
        yield Refusal(EVIDENCE, reason, _REPACK)
    asked = {name: about for name, about in made_from.items() if name != EVIDENCE}
    if other := sorted(name for name in asked if manifest.made_from.get(name) != asked[name]):
        yield Refusal(EVIDENCE, f"is about another {', '.join(other)}", _REPACK)
    passed = {(result.asset, result.check, result.storage_id) for result in pack.checks if result.passed}
    for asset, check in required_checks():
        if asset in asked and (asset, check, asked[asset].storage_id) not in passed:
            yield Refusal(f"{asset}/{check}", "is not recorded as passed in the evidence pack", _REPACK)


def _examine_approval(case: Case, pack: Pack, releases: ReleasesResource) -> None:
    command = (
        f"A named person approves with: cde approve {pack.manifest.portfolio} --evidence {pack.digest} --key KEY.pem "
        "--name NAME; then materialise champion_model and scoring_bento"
    )
    try:
        approval = read_approval(releases.store().approvals, pack)
        approval.verify(pack, approvers=releases.approvers(), platform=releases.trusted(), now=releases.now())
    except (ApprovalError, SignatureError) as error:
        case.refusals.append(Refusal("approval", str(error), command))
    else:
        case.approval = approval


def _examine_operation(
    case: Case, instance: dg.DagsterInstance, lending: Portfolio, releases: ReleasesResource
) -> None:
    """Refuse what failed on the running service, also where that was measured after the compliance report."""
    try:
        rulebook = Rulebook.read()
    except RulebookError as error:
        case.refusals.append(Refusal("rulebook", str(error), f"Mend {RULEBOOK_FILE}, then run the whole job"))
        return
    rules = tuple(rule for rule in rulebook.rules if rule.phase is Phase.OPERATION)
    try:
        measured = releases.measured(rulebook, _marks(case, instance, lending.name))
        results = evaluate(
            rulebook.model_copy(update={"rules": rules}),
            measured.facts(releases.now()),
            lending.jurisdiction,
            thresholds=asdict(lending.thresholds),
            today=releases.now().date(),
        )
    except LedgerError:
        return  # told by `_examine_ledger`
    except (OperationFactsError, FactError) as error:
        remedy = "Restore operation.jsonl from a backup; a fact that its rule cannot take is measured again"
        case.refusals.append(Refusal("facts of operation", str(error), remedy))
        return
    case.operation = measured.mark
    for result in results:
        if result.blocks:
            remedy = "Mend the service and measure again, then run train_and_release again"
            case.refusals.append(Refusal(f"rule {result.id}", f"failed in operation: {result.plain()}", remedy))


def _marks(case: Case, instance: dg.DagsterInstance, portfolio: str) -> list[Mark]:
    """How far the log of operation reached in every compliance report, and in the one that is in evidence."""
    key = dg.AssetKey([portfolio, "compliance_report"])
    marks = [
        Mark(entries=int(told["operation_entries"]), head=str(told["operation_head"]))
        for told in latest_metadata(instance, key, SEEN_REPORTS)
        if "operation_entries" in told
    ]
    if case.pack is not None:
        told = case.pack.report("reports/compliance_report.json").get("operation_log")
        if told is None:
            raise OperationFactsError("the compliance report does not say how far operation.jsonl reached")
        marks.append(Mark.model_validate(told))
    return marks


def _examine_ledger(case: Case, instance: dg.DagsterInstance, releases: ReleasesResource) -> None:
    try:
        entries = releases.store().ledger.entries()
    except LedgerError as error:
        case.refusals.append(Refusal("ledger", str(error), "Restore ledger.jsonl from a backup"))
        return
    key = dg.AssetKey([releases.portfolio, "champion_model"])
    promotions = latest_metadata(instance, key, 1)
    told = promotions[0].get("ledger_entry", 0) if promotions else 0
    if told > len(entries):
        reason = f"has {len(entries)} entries, but there was an entry {told}"
        case.refusals.append(Refusal("ledger", reason, "Restore ledger.jsonl from a backup"))
    last = entries[-1] if entries else None
    if case.pack is None or case.bundle is None or (last and last.bundle == case.bundle):
        return
    if used := [entry for entry in entries if entry.evidence == case.pack.digest]:
        reason = f"this evidence was used for entry {used[0].sequence}, and another bundle was made champion since"
        case.refusals.append(Refusal("ledger", reason, "Run train_and_release again, or cde rollback to return to it"))
    elif stale := conflict(last, case.compared_with):
        case.refusals.append(Refusal("ledger", stale, RECOMPARE))
