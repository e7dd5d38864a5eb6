"""The gate: is there proof that exactly what is to be promoted passed every statement?

A blocking check stops what follows only within its own run; a champion materialised alone would slip past it. So the
gate asks the event log itself, for the materialisations that the challenger and its reports were made from, and the
signed evidence pack of just these materialisations, and a person's approval where the portfolio wants one.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
from dagster import AssetRecordsFilter

from cde_checks import features, governance, loan_book, model
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
from cde_serving.evidence import CheckResult, EvidenceError, Materialisation, Pack, verify_pack
from cde_serving.ledger import LedgerError, conflict
from cde_serving.operation import Mark, OperationFactsError
from cde_serving.signing import SignatureError

GATING_MODULES: tuple[ModuleType, ...] = (loan_book, features, model, governance)
REPORTS = (
    "challenger_model",
    "evaluation",
    "fairness_report",
    "alternatives_search",
    "explanation_report",
    "latency_report",
    "compliance_report",
    "model_card",
)
EVIDENCE = "evidence_pack"
SEEN_REPORTS = 100  # compliance reports whose mark of the log of operation is asked for
_POINTER = "dagster/input_event_pointer/"


def gating_checks() -> tuple[tuple[str, str, bool], ...]:
    """The (asset, check, whether it blocks) of every check before the release."""
    return tuple(
        (spec.asset_key.path[-1], spec.name, spec.blocking)
        for module in GATING_MODULES
        for checks in vars(module).values()
        if isinstance(checks, dg.AssetChecksDefinition)
        for spec in checks.check_specs
    )


def required_checks() -> tuple[tuple[str, str], ...]:
    """The (asset, check) names of every blocking check before the release."""
    return tuple((asset, check) for asset, check, blocking in gating_checks() if blocking)


_RERUN = "Run the whole job train_and_release"
RECOMPARE = "Run train_and_release again, so that it is compared with today's champion"


@dataclass(frozen=True)
class Judged:
    """What the latest challenger and its reports were made from, by asset, and what does not hold together in it."""

    made_from: Mapping[str, Materialisation]
    problems: tuple[Refusal, ...]


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


def log_refusals(instance: dg.DagsterInstance, portfolio: str, judgement: Judged) -> list[Refusal]:
    """What the event log says against a challenger: what does not hold together, and checks that did not pass."""
    found = list(judgement.problems)
    if judgement.made_from:
        for asset, check in required_checks():
            found += _check_refusals(instance, portfolio, asset, check, judgement.made_from.get(asset))
    return found


def judged(instance: dg.DagsterInstance, portfolio: str, assets: Iterable[str] = REPORTS) -> Judged:
    """The materialisations that the latest ones of some assets were made from, themselves included."""
    made_from: dict[dg.AssetKey, int] = {}
    found: list[Refusal] = []
    read = functools.cache(functools.partial(_record, instance))  # the walks from all reports meet
    for name in assets:
        key = dg.AssetKey([portfolio, name])
        records = instance.fetch_materializations(key, limit=1).records
        if not records:
            return Judged({}, (Refusal(name, "was never materialised", _RERUN),))
        found += _merge(made_from, _ancestry(read, key, records[0].storage_id), reader=name)
    about = {key.path[-1]: _materialisation(read, key, storage_id) for key, storage_id in made_from.items()}
    found += [Refusal(name, "was reported by hand, not made by a run", _RERUN) for name in about if not about[name].run]
    return Judged(about, tuple(found))


def check_results(
    instance: dg.DagsterInstance, portfolio: str, made_from: Mapping[str, Materialisation]
) -> tuple[CheckResult, ...]:
    """What every check before the release said about exactly these materialisations, as far as it was run on them."""
    results = []
    for asset, check, blocking in gating_checks():
        if (about := made_from.get(asset)) is None:
            continue
        found = _evaluation(instance, dg.AssetKey([portfolio, asset]), check, about.storage_id)
        if found is None:
            continue
        evaluation, run = found
        results.append(
            CheckResult(
                asset=asset,
                check=check,
                blocking=blocking,
                passed=evaluation.passed,
                severity="WARN" if evaluation.severity is dg.AssetCheckSeverity.WARN else "ERROR",
                description=evaluation.description,
                numbers=_numbers(evaluation.metadata),
                storage_id=about.storage_id,
                sha256=about.sha256,
                run=run,
            )
        )
    return tuple(results)


def _numbers(metadata: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    values = {name: value.value for name, value in metadata.items()}
    return {
        name: value if not isinstance(value, float) or math.isfinite(value) else str(value)
        for name, value in values.items()
        if isinstance(value, bool | int | float | str)
    }


_Read = Callable[[dg.AssetKey, int], dg.EventLogRecord | None]


def _ancestry(read: _Read, key: dg.AssetKey, storage_id: int) -> dict[dg.AssetKey, set[int]]:
    """Every materialisation that one was made from, directly or not, itself included, by asset."""
    ancestry: dict[dg.AssetKey, set[int]] = {}
    pending = [(key, storage_id)]
    while pending:
        key, storage_id = pending.pop()
        if storage_id in ancestry.setdefault(key, set()):
            continue
        ancestry[key].add(storage_id)
        record = read(key, storage_id)
        materialization = record.event_log_entry.asset_materialization if record else None
        for tag, value in (materialization.tags or {}).items() if materialization else ():
            if tag.startswith(_POINTER) and value != "NULL":
                pending.append((dg.AssetKey.from_user_string(tag.removeprefix(_POINTER)), int(value)))
    return ancestry


def _record(instance: dg.DagsterInstance, key: dg.AssetKey, storage_id: int) -> dg.EventLogRecord | None:
    found = instance.fetch_materializations(
        AssetRecordsFilter(asset_key=key, storage_ids=[storage_id]), limit=1
    ).records
    return found[0] if found else None


def _metadata(read: _Read, key: dg.AssetKey, storage_id: int) -> Mapping[str, Any]:
    record = read(key, storage_id)
    materialization = record.event_log_entry.asset_materialization if record else None
    return {name: value.value for name, value in materialization.metadata.items()} if materialization else {}


def _materialisation(read: _Read, key: dg.AssetKey, storage_id: int) -> Materialisation:
    record = read(key, storage_id)
    return Materialisation(
        storage_id=storage_id,
        run=record.run_id if record else "",
        sha256=_metadata(read, key, storage_id).get("sha256"),
    )


def _merge(
    made_from: dict[dg.AssetKey, int], ancestry: dict[dg.AssetKey, set[int]], *, reader: str
) -> Iterable[Refusal]:
    others = []
    for key, storage_ids in ancestry.items():
        if storage_ids != {made_from.setdefault(key, min(storage_ids))}:
            others.append(key.path[-1])
    if others:
        yield Refusal(
            reader, f"was made from another {', '.join(sorted(others))} than the rest of the evidence", _RERUN
        )


def _evaluation(
    instance: dg.DagsterInstance, key: dg.AssetKey, check: str, storage_id: int
) -> tuple[dg.AssetCheckEvaluation, str] | None:
    """What a check said last about one materialisation, and the run in which it did."""
    history = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, check), limit=100)
    for record in history:  # latest first
        event = record.event.dagster_event if record.event else None
        evaluation = event.event_specific_data if event else None
        if not isinstance(evaluation, dg.AssetCheckEvaluation) or evaluation.target_materialization_data is None:
            continue
        by_hand = not record.run_id  # Dagster lets anybody report a check as passed
        if evaluation.target_materialization_data.storage_id == storage_id and not by_hand:
            return evaluation, record.run_id
    return None


def _check_refusals(
    instance: dg.DagsterInstance, portfolio: str, asset: str, check: str, about: Materialisation | None
) -> Iterable[Refusal]:
    subject = f"{asset}/{check}"
    if about is None:
        yield Refusal(subject, "nothing was checked that this challenger is made from", _RERUN)
        return
    found = _evaluation(instance, dg.AssetKey([portfolio, asset]), check, about.storage_id)
    if found is None:
        yield Refusal(subject, "was not run on what this challenger is made from", _RERUN)
    elif not found[0].passed:
        evaluation = found[0]
        said = evaluation.description or ", ".join(f"{k} {v.value}" for k, v in evaluation.metadata.items())
        reason = f"failed ({said})" if said else "failed"
        yield Refusal(subject, reason, "Mend what it names and run train_and_release again")


_REPACK = "Materialise evidence_pack again"


def _examine_artefacts(case: Case, portfolio: PortfolioResource, made_from: Mapping[str, Materialisation]) -> None:
    """Refuse reports whose files are no longer those that were written; all others are read before the reports."""
    for name in (*REPORTS, EVIDENCE):
        path = portfolio.artefacts / f"{name}.json"
        if name in made_from and not _is_file_of(path, made_from[name].sha256):
            reason = f"{path.name} is not the file that it was materialised as"
            case.refusals.append(Refusal(name, reason, _REPACK if name == EVIDENCE else _RERUN))


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
        case.refusals.append(Refusal("challenger_model", str(failure.description), _RERUN))
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
        read = functools.partial(_record, instance)
        return _metadata(read, dg.AssetKey([lending.name, asset]), made_from[asset].storage_id)

    digest = str(metadata(EVIDENCE)["evidence"])
    try:
        pack = verify_pack(releases.store().evidence / digest, releases.trusted())
    except (EvidenceError, SignatureError) as error:
        case.refusals.append(Refusal(EVIDENCE, str(error), _REPACK))
        return
    asked = str(metadata("challenger_model")["model_digest"])
    found = list(_pack_refusals(pack, digest, lending.name, asked, made_from))
    if pack.manifest.portfolio_code != portfolio.code_digest():
        found.append(Refusal(EVIDENCE, "the portfolio's code or policy was changed since it was judged", _RERUN))
    judged_by = pack.report("reports/compliance_report.json")["rulebook"].get("sha256")
    if not _is_file_of(RULEBOOK_FILE, judged_by):
        found.append(Refusal("compliance_report", "the rulebook was changed since it was judged", _RERUN))
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
    records = instance.fetch_materializations(key, limit=SEEN_REPORTS).records
    read = functools.partial(_record, instance)
    noted = [_metadata(read, key, record.storage_id) for record in records]
    marks = [
        Mark(entries=int(told["operation_entries"]), head=str(told["operation_head"]))
        for told in noted
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
    records = instance.fetch_materializations(key, limit=1).records
    read = functools.partial(_record, instance)
    told = _metadata(read, key, records[0].storage_id).get("ledger_entry", 0) if records else 0
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
