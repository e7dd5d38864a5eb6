"""Why a challenger cannot be promoted, and how that reads."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cde_domain.governance.card import standing


@dataclass(frozen=True)
class Refusal:
    """One reason why a challenger cannot be promoted, and what to do about it."""

    subject: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.reason}. {self.remedy}."


def explained(refusals: Iterable[Refusal]) -> str:
    """All refusals in few lines: what to do, and under it every reason with all that it is true of."""
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for refusal in refusals:
        found[refusal.remedy][refusal.reason].append(refusal.subject)
    return "\n".join(
        "\n".join(
            [*(f"  - {', '.join(subjects)}: {reason}" for reason, subjects in reasons.items()), f"    To do: {remedy}."]
        )
        for remedy, reasons in found.items()
    )


def unsettled(rules: list[dict[str, Any]]) -> str:
    """The rules that do not stop a promotion and are no pass either, in a line."""
    meant = {
        "failed": "failed without stopping it",
        "warnings": "warn",
        "insufficient_data": "have insufficient data",
        "open": "are open",
        "not_yet_in_operation": "wait for the running service",
    }
    said = [f"{', '.join(ids)} {meant[kind]}" for kind, ids in standing(rules).items() if ids]
    return f"Of the rules {'; '.join(said)}." if said else "Every rule is settled."
