"""Experiments: which bundles decide beside the champion, and for how many customers.

An experiment is a signed entry of `experiments.jsonl`, as a promotion is one of the ledger: whoever may sign has asked
the gate about the challenger before. One runs at a time; its name is used once, since it draws the customers.
"""

from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from rfc8785 import FloatDomainError

from cde_domain.clock import Clock, utc_now
from cde_serving.signed_log import SignedEntry, SignedLog, SignedLogError
from cde_serving.signing import SigningKey

LOG = "experiments.jsonl"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_\-]{0,62}$")]
Weight = Annotated[float, Field(ge=0, le=1)]


class ExperimentError(SignedLogError):
    """An experiment that cannot be, or a log of experiments that was changed or damaged."""


class ExperimentConflictError(RuntimeError):
    """Somebody started, changed or stopped an experiment in the meantime."""


class Participant(BaseModel):
    """A bundle in an experiment, and the digest of the evidence pack about its model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: Digest
    evidence: Digest


class ExperimentEntry(SignedEntry):
    """
    The start of an experiment, a change of its weight, or its end.

    Each says all that holds from then on; after a `stop` nothing does. `compared_with` is the number of the ledger's
    last entry when it started: the champion that the challenger is compared with. Earlier versions wrote none.
    """

    at: str
    action: Literal["start", "weight", "stop"]
    experiment: Name
    challenger: Participant | None
    shadows: tuple[Participant, ...]
    weight: Weight
    by: str
    reason: str = ""
    compared_with: int | None = None

    @property
    def running(self) -> bool:
        """Whether an experiment holds after this entry."""
        return self.action != "stop"


class ExperimentLog:
    """The experiments of one portfolio, as a `SignedLog`."""

    def __init__(self, folder: Path, public_key: Path, *, portfolio: str | None, clock: Clock = utc_now) -> None:
        self.path = folder / LOG
        self._clock = clock
        self._log = SignedLog(
            self.path,
            public_key,
            "experiment",
            ExperimentEntry,
            portfolio=portfolio,
            error=ExperimentError,
            follows=_can_follow,
        )

    def entries(self) -> tuple[ExperimentEntry, ...]:
        """
        All entries, oldest first.

        Raises:
            ExperimentError: a line is damaged, not signed by a trusted key, or cannot follow on those before.
        """
        return tuple(entry for entry, _ in self._log.verified())

    def current(self) -> ExperimentEntry | None:
        """The last entry of the experiment that runs, None if none does; raises as `entries`."""
        entries = self.entries()
        return entries[-1] if entries and entries[-1].running else None

    def start(
        self,
        experiment: str,
        *,
        portfolio: str,
        challenger: Participant | None,
        weight: float,
        shadows: tuple[Participant, ...] = (),
        by: str,
        key: SigningKey,
        compared_with: int | None = None,
        reason: str = "",
    ) -> ExperimentEntry:
        """
        Start an experiment; whoever calls has asked the gate about the challenger.

        Raises:
            ExperimentError: one runs, the name was used before, nobody takes part, or the log is damaged.
        """
        stated = {
            "portfolio": portfolio,
            "action": "start",
            "experiment": experiment,
            "challenger": challenger.model_dump() if challenger else None,
            "shadows": [shadow.model_dump() for shadow in shadows],
            "weight": weight,
            "by": by,
            "reason": reason,
            "compared_with": compared_with,
        }
        return self._append(stated, key)

    def change_weight(
        self, weight: float, *, by: str, key: SigningKey, reason: str = "", expected_sequence: int | None = None
    ) -> ExperimentEntry:
        """
        Give the challenger of the running experiment another share of the customers.

        With `expected_sequence` only if that entry is still the last: nothing is done twice.

        Raises:
            ExperimentError: none runs, it has no challenger, or the log is damaged.
            ExperimentConflictError: another entry is the last one.
        """
        return self._append({"action": "weight", "weight": weight, "by": by, "reason": reason}, key, expected_sequence)

    def stop(
        self, *, by: str, key: SigningKey, reason: str = "", expected_sequence: int | None = None
    ) -> ExperimentEntry:
        """
        End the running experiment: the champion decides alone.

        With `expected_sequence` only if that entry is still the last.

        Raises:
            ExperimentError: none runs, or the log is damaged.
            ExperimentConflictError: another entry is the last one.
        """
        return self._append({"action": "stop", "weight": 0.0, "by": by, "reason": reason}, key, expected_sequence)

    def _append(self, stated: Mapping[str, Any], key: SigningKey, expected: int | None = None) -> ExperimentEntry:
        with self._log.locked():
            chain = self._log.verified()
            if expected is not None and len(chain) != expected:
                raise ExperimentConflictError(f"entry {expected} was expected to be the last, but it is {len(chain)}")
            running: dict[str, Any] = {}
            if stated["action"] != "start":
                if not chain or not chain[-1][0].running:
                    raise ExperimentError("no experiment runs")
                kept = {"portfolio", "experiment", "challenger", "shadows", "compared_with"}
                running = chain[-1][0].model_dump(mode="json", include=kept)
            at = self._clock().astimezone(UTC).isoformat().replace("+00:00", "Z")
            try:
                return self._log.append(chain, {"at": at, **running, **stated}, key)[0]
            except ValidationError as error:
                wrong = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors(include_url=False))
                raise ExperimentError(wrong) from error
            except FloatDomainError as error:
                raise ExperimentError(f"weight: {error}") from error


def _can_follow(entry: ExperimentEntry, chain: list[tuple[ExperimentEntry, str]]) -> None:
    last = chain[-1][0] if chain else None
    if entry.action == "start":
        _can_start(entry, chain)
    elif last is None or not last.running:
        raise SignedLogError("changes an experiment, but none runs")
    elif _terms(entry) != _terms(last):
        raise SignedLogError(f"is of another experiment than {last.experiment}, which runs")
    if entry.challenger is None and entry.weight:
        raise SignedLogError("has a weight, but no challenger that it could be of")


def _terms(entry: ExperimentEntry) -> tuple[Any, ...]:
    return entry.experiment, entry.challenger, entry.shadows, entry.compared_with


def _can_start(entry: ExperimentEntry, chain: list[tuple[ExperimentEntry, str]]) -> None:
    if chain and chain[-1][0].running:
        raise SignedLogError(f"starts {entry.experiment}, but {chain[-1][0].experiment} runs; stop that first")
    if any(entry.experiment == other.experiment for other, _ in chain):
        raise SignedLogError(
            f"starts {entry.experiment}, a name that was used before: it would draw the same customers"
        )
    bundles = [one.bundle for one in (entry.challenger, *entry.shadows) if one]
    if not bundles or len(bundles) != len(set(bundles)):
        raise SignedLogError("needs a challenger or shadows, each bundle once")
