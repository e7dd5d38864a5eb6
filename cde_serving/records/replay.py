"""Replaying the decision log: does the bundle that decided still decide the same?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cde_domain.decisions.engine import DecidedBy, Decision, Routing
from cde_domain.decisions.review import reviewed_as
from cde_domain.features.feature import Feature
from cde_domain.release import Bundle, BundleError, load_bundle
from cde_serving.records.raw import shown
from cde_serving.records.record import DEFAULT_TENANT, ErasedError, Kind, Record
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import VaultError
from cde_serving.records.versions import VersionsOf

REPLAYED: tuple[Kind, ...] = ("decision", "shadow")

Outcome = Literal["identical", "different", "erased", "impossible"]


@dataclass(frozen=True)
class Replay:
    """
    What a decision came to when it was taken again.

    `from_request` says whether the request was turned into features again too, which only the same code does. `detail`
    names what differs, or why it could not be taken; never a value. `score_difference` is the largest, None without
    scores.
    """

    record_id: str
    outcome: Outcome
    from_request: bool = False
    detail: str = ""
    score_difference: float | None = None


class Replayer:
    """Takes recorded decisions again, with the bundles in folders of bundles, those of retired models included."""

    def __init__(self, store: RecordStore, *bundles: Path) -> None:
        self._store = store
        self._bundles = bundles
        self._loaded: dict[str, Bundle | BundleError] = {}
        self._versions = VersionsOf()

    def replay(self, record_id: str, tenant: str = DEFAULT_TENANT) -> Replay | None:
        """Take one decision again; None if there is no such decision."""
        try:
            record = self._store.get(record_id, tenant, REPLAYED)
            return self._again(record) if record else None
        except ErasedError:
            return Replay(record_id, "erased")
        except VaultError as error:
            return Replay(record_id, "impossible", detail=str(error))
        except Exception as error:  # a changed column can hold anything; a message can quote it
            return Replay(shown(record_id), "impossible", detail=f"the record cannot be read: {type(error).__name__}")

    def replay_all(self) -> Iterator[Replay]:
        """Take every decision again."""
        for record_id, tenant in self._store.ids(REPLAYED):
            again = self.replay(record_id, tenant)
            yield again or Replay(shown(record_id), "impossible", detail="the record cannot be found by its id")

    def _again(self, record: Record) -> Replay:
        bundle = self._bundle(record.versions.bundle)
        if isinstance(bundle, BundleError):
            return Replay(record.record_id, "impossible", detail=str(bundle))
        differences = []
        scores: list[float] = []
        same_code = self._versions(bundle).code == record.versions.code
        if Routing.DECISION_FAILED in record.reason_codes and record.decided_by == DecidedBy.FALLBACK:
            return _failed_again(record, bundle, same_code=same_code)
        try:
            matrix = matrix_of(bundle.portfolio.features, record.payload.features)
            again = bundle.engine.decide_features(matrix)
            differences += _differences(record, again, "features")
            scores += _score_difference(record, again)
            if same_code:
                again = _from_request(record, bundle)
                differences += _differences(record, again, "request")
                scores += _score_difference(record, again)
        except (
            Exception
        ) as error:  # a portfolio's code can fail in any way; its message can hold the applicant's values
            return Replay(record.record_id, "impossible", same_code, f"the bundle raised {type(error).__name__}")
        outcome: Outcome = "different" if differences else "identical"
        return Replay(record.record_id, outcome, same_code, "; ".join(differences), max(scores, default=None))

    def _bundle(self, digest: str) -> Bundle | BundleError:
        if digest not in self._loaded:
            folder = next((known / digest for known in self._bundles if (known / digest).is_dir()), None)
            try:
                if folder is None:
                    raise BundleError(f"the bundle {digest[:12]} is in none of the folders of bundles")
                self._loaded[digest] = load_bundle(folder, digest)
            except BundleError as error:
                self._loaded[digest] = error
        return self._loaded[digest]


def matrix_of(features: tuple[Feature, ...], recorded: Mapping[str, float | str | None]) -> NDArray[np.float64]:
    """Recorded features as the model took them, float64 of shape (1, features)."""
    values: list[float] = []
    for feature in features:
        value: Any = recorded[feature.name]
        if value is None:
            values.append(np.nan)
        else:
            values.append(float(feature.categories.index(value)) if feature.categories else value)
    return np.array([values])


def _score_difference(record: Record, again: Decision) -> list[float]:
    then, now = record.payload.score, again.score
    return [] if then is None or now is None else [abs(then - now)]


def _from_request(record: Record, bundle: Bundle) -> Decision:
    application = bundle.portfolio.application.model_validate_json(record.payload.request)
    return bundle.engine.decide(application, date.fromisoformat(record.applied_at[:10]))


def _failed_again(record: Record, bundle: Bundle, *, same_code: bool) -> Replay:
    """A decision that failed has no features: only the same code, from the request, can show why."""
    if not same_code:
        told = "deciding failed then; the code is another, so that nothing can be compared"
        return Replay(record.record_id, "impossible", detail=told)
    try:
        _from_request(record, bundle)
    except Exception:  # as it did then
        return Replay(record.record_id, "identical", True)
    return Replay(record.record_id, "different", True, "deciding failed then, and does not now")


def _differences(record: Record, decided: Decision, source: str) -> list[str]:
    payload = record.payload
    again = reviewed_as(decided, record.decided_by, record.reason_codes)
    compared = {
        "features": (payload.features, dict(again.features)),
        "score": (payload.score, again.score),
        "decision": (record.decision, again.decision.value),
        "reason codes": (record.reason_codes, tuple(map(str, again.reason_codes))),
        "contributions": (
            payload.contributions,
            {name: _in_json(value) for name, value in again.contributions.items()},
        ),
    }
    return [f"{name} from the {source} differ" for name, (then, now) in compared.items() if then != now]


def _in_json(value: float) -> float | None:
    return value if isfinite(value) else None
