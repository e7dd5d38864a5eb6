"""Facts about the inventory entry, the separation of roles, and what the card and its lineage are made of."""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from cde_domain.governance.card import empty_sections, portfolio_facts
from cde_domain.governance.facts import MEASURED_HERE, Fact, counted
from cde_domain.portfolio import Portfolio

# What leads from a model back to its data, its code and the run that made it.
LINEAGE = (
    ("digest",),
    ("library", "sha256"),
    ("mlflow_run_id",),
    ("mlflow_version",),
    ("provenance", "library"),
    ("provenance", "python"),
    ("provenance", "parameters"),
    ("provenance", "training_set_sha256"),
)


def inventory_facts(portfolio: Portfolio, approvers: Collection[str], today: date) -> list[Fact]:
    """
    The inventory entry as the lender declares it, and whether who built the model also judges it.

    Nothing without an entry: the rule stays open then. `approvers` are the names whose keys may approve.
    """
    entry = portfolio.inventory
    if entry is None:
        return []
    stated = (entry.owner, entry.developer, entry.validator)
    developer = entry.developer.strip().casefold()
    judges = {name.strip().casefold() for name in (entry.validator, *approvers)}
    return counted(
        "portfolio",
        {
            "missing_required_fields": sum(not text.strip() for text in stated),
            "developer_is_validator_or_approver": developer in judges,
            "tier": entry.tier,
            "days_since_tier_review": (today - entry.tier_reviewed_on).days,
            "open_blocking_validation_findings": len(entry.open_findings),
        },
    )


def documentation_facts(portfolio: Portfolio, reports: Mapping[str, Mapping[str, Any]]) -> list[Fact]:
    """
    Whether every required section of the card will have content, and whether the model's lineage is whole.

    `reports` are those that exist before the rules are decided.
    """
    empty = empty_sections({"portfolio": portfolio_facts(portfolio), **reports}, before=("compliance_report",))
    challenger = reports["challenger_model"]
    strangers = [
        name
        for name, report in reports.items()
        if report.get("model_digest", challenger["digest"]) != challenger["digest"]
    ]
    missing = [path for path in LINEAGE if not _at(challenger, path)]
    return counted(
        MEASURED_HERE,
        {"empty_required_card_sections": len(empty), "lineage_keys_missing": len(missing) + len(strangers)},
    )


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
