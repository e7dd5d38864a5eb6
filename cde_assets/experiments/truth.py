"""
What is true of an experiment, and what is due.

The signed logs alone say it: a report only asks, for the entry that it is about, and once another entry is the last it
asks for nothing. So whatever crashes between asking and acting, nothing happens twice and nothing is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cde_domain.decisions.experiments.cohort import Step, Terms
from cde_domain.decisions.experiments.verdict import ENDINGS, Verdict
from cde_resources.releases import ReleasesResource
from cde_serving.experiments import ExperimentEntry
from cde_serving.ledger import LedgerEntry

PLATFORM = "dagster:"  # by whom what a run did is signed

PROMOTED = "promoted by entry"
REPLACED = "the champion that it was compared with decides no longer"


@dataclass(frozen=True)
class Due:
    """
    What is to be done to the experiment whose last entry has the number `entry`.

    `report` is the number of the event that told of the report which asks for it; 0 where the logs alone do.
    """

    action: Literal["weight", "stop", "promote"]
    experiment: str
    entry: int
    challenger: str
    reason: str
    weight: float = 0.0
    report: int = 0


@dataclass(frozen=True)
class Nothing:
    """Why nothing is to be done."""

    why: str


def running(releases: ReleasesResource) -> str | None:
    """
    The experiment in which a challenger decides; None where none runs or only shadows take part.

    Raises:
        ExperimentError: the log of experiments is damaged.
    """
    current = releases.store().experiments.current()
    return current.experiment if current and current.challenger else None


def terms_of(entries: Sequence[ExperimentEntry], ledger: Sequence[LedgerEntry]) -> Terms | None:
    """What was signed of the experiment that runs; None where none does, or there was no champion."""
    if not entries or not entries[-1].running:
        return None
    last = entries[-1]
    own = [entry for entry in entries if entry.experiment == last.experiment]
    champion = champion_of(own[0], ledger)
    if champion is None:
        return None
    return Terms(
        experiment=last.experiment,
        entry=last.sequence,
        champion=champion.bundle,
        challenger=last.challenger.bundle if last.challenger else None,
        shadows=tuple(shadow.bundle for shadow in last.shadows),
        steps=tuple(Step(datetime.fromisoformat(entry.at), entry.weight) for entry in own),
    )


def champion_of(start: ExperimentEntry, ledger: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """The entry of the ledger that an experiment's challenger is compared with."""
    if start.compared_with is not None:
        return next((entry for entry in ledger if entry.sequence == start.compared_with), None)
    before = [entry for entry in ledger if datetime.fromisoformat(entry.at) <= datetime.fromisoformat(start.at)]
    return before[-1] if before else None


def due(
    entries: Sequence[ExperimentEntry],
    ledger: Sequence[LedgerEntry],
    report: Mapping[str, Any],
    *,
    automatic: bool,
) -> Due | Nothing:
    """
    What is to be done now, by the logs and by what the latest report said of itself (empty: there is none).

    Where a person has to approve (`automatic` false), only ends are due by themselves.
    """
    current = entries[-1] if entries else None
    if current is None or not current.running or current.challenger is None:
        return Nothing("no challenger is in an experiment")
    about = (current.experiment, current.sequence, current.challenger.bundle)
    if ledger and ledger[-1].bundle == current.challenger.bundle:
        return Due("stop", *about, reason=f"{PROMOTED} {ledger[-1].sequence} of the ledger")
    start = next(entry for entry in entries if entry.experiment == current.experiment)
    champion = champion_of(start, ledger)
    if not ledger or champion is None or champion.sequence != ledger[-1].sequence:
        return Due("stop", *about, reason=REPLACED)
    if report.get("experiment") != current.experiment or report.get("entry") != current.sequence:
        return Nothing(f"{current.experiment} waits for a report about its weight of {current.weight:.0%}")
    return _asked(current, about, report, automatic=automatic)


def ended_by_guardrail(entry: ExperimentEntry) -> bool:
    """Whether the platform ended an experiment on a breach: for none of the other reasons that it ends one for."""
    by_itself = entry.action == "stop" and entry.by.startswith(PLATFORM)
    return by_itself and not entry.reason.startswith((PROMOTED, REPLACED, *ENDINGS))


def _asked(
    current: ExperimentEntry, about: tuple[str, int, str], report: Mapping[str, Any], *, automatic: bool
) -> Due | Nothing:
    reason = str(report.get("said", ""))
    match report.get("verdict"):
        case Verdict.STOP:
            return Due("stop", *about, reason=reason)
        case Verdict.RAMP if automatic:
            return Due("weight", *about, reason=reason, weight=float(report["next_weight"]))
        case Verdict.PROMOTE if automatic:
            return Due("promote", *about, reason=reason)
        case Verdict.RAMP:
            command = f"cde experiment weight {float(report['next_weight']):g}"
            return Nothing(f"{current.experiment} may grow, and waits for a person: {command}")
        case Verdict.PROMOTE:
            return Nothing(f"{current.experiment} is won, and waits for a person to materialise champion_model")
    return Nothing(f"{current.experiment} is held: {reason}")
