"""Facts about the search for less discriminatory models."""

from collections.abc import Mapping
from typing import Any

from cde_domain.governance.alternatives import Finding
from cde_domain.governance.facts import Fact, counted, not_applicable

ARTEFACT = "alternatives_search.json"


def alternatives_facts(report: Mapping[str, Any]) -> list[Fact]:
    """How many were tried, and how many were found and left unanswered; nothing found by too few people is open."""
    if report["finding"] == Finding.NOT_APPLICABLE:
        return not_applicable(ARTEFACT, report["reason"], ["n_candidates", "alternatives_unanswered"])
    unanswered = len(report["unanswered"])
    return [
        *counted(ARTEFACT, {"n_candidates": report["n_candidates"]}),
        Fact(
            "alternatives_unanswered",
            ARTEFACT,
            float(unanswered),
            sufficient=unanswered > 0 or report["finding"] != Finding.INSUFFICIENT_DATA,
        ),
    ]
