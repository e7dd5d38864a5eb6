"""Policy simulation: recorded decisions taken again under another policy, or by another model."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.decisions.engine import DecidedBy, DecisionEngine, Routing
from cde_domain.decisions.explained import Explained, explained
from cde_domain.decisions.monitoring.recorded import feature_matrix_of
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.decisions.review import OVERRULING
from cde_domain.decisions.variants import Variant

NOT_REPRODUCED = "NOT_REPRODUCED"  # the bundle that decided decides otherwise on what was recorded
BUNDLE_MISSING = "BUNDLE_MISSING"  # the bundle that decided is not here any more

# Neither policy nor model led to these, so another policy or model says nothing about them.
OUTSIDE = frozenset((*map(str, OVERRULING), str(Routing.DECISION_FAILED)))

IDENTITY = ["decision_id", "tenant", "customer", "applied_at", "variant", "bundle"]


class SimulationError(ValueError):
    """A simulation that cannot be made; the message says why."""


def simulate(
    decisions: pd.DataFrame,
    engines: Mapping[str, DecisionEngine],
    *,
    policy: Policy | None = None,
    model: DecisionEngine | None = None,
) -> pd.DataFrame:
    """
    Take recorded decisions again as another `policy`, another `model` (with its own policy unless one is given), or
    both would have taken them.

    `engines` are those that decided, by the digest of their bundle. Shadow decisions are left out: nobody was answered
    by them. A decision is taken again only if the engine that took it gives the recorded decision, reasons and score
    on the recorded features; every other one is kept as it was, and `kept` says why: a code of `OUTSIDE`,
    `BUNDLE_MISSING` or `NOT_REPRODUCED`. Reasons under another policy are measured against the model's own baseline.

    Returns one row a decision in the order recorded: the columns of `IDENTITY`; `kept` ("" where taken again);
    `actual`, `actual_score`, `actual_by`, `actual_codes` and the same of `simulated`; `changed`; `why`, a sentence
    without a value of the applicant.

    Raises:
        SimulationError: there is nothing to simulate with, or the model asks for features that were not recorded.
        PolicyError: the policy asks for a feature or category that a model does not have.
    """
    if policy is None and model is None:
        raise SimulationError("neither another policy nor another model is given")
    answered = decisions[decisions["variant"] != Variant.SHADOW.value].reset_index(drop=True)
    frame = answered[IDENTITY].copy()
    codes = [tuple(map(str, given)) for given in answered["reason_codes"]]
    frame["kept"] = [_outside(by, given) for by, given in zip(answered["decided_by"], codes, strict=True)]
    for side in ("actual", "simulated"):
        frame[side] = answered["decision"].astype(object)
        frame[f"{side}_score"] = answered["score"].astype(float)
        frame[f"{side}_by"] = answered["decided_by"].astype(object)
        frame[f"{side}_codes"] = pd.Series(codes, index=frame.index, dtype=object)
    frame["why"] = ""
    for bundle, part in frame[frame["kept"] == ""].groupby("bundle"):
        own = engines.get(str(bundle))
        if own is None:
            frame.loc[part.index, "kept"] = BUNDLE_MISSING
            continue
        other = _other(own, policy, model)
        _check_features(own, other, str(bundle))
        _take_again(frame, answered, part.index.to_numpy(), own, other)
    frame["changed"] = frame["actual"] != frame["simulated"]
    return frame


def _outside(decided_by: str, codes: Sequence[str]) -> str:
    found = [code for code in codes if code in OUTSIDE] if decided_by == DecidedBy.FALLBACK else []
    return found[0] if found else ""


def _other(own: DecisionEngine, policy: Policy | None, model: DecisionEngine | None) -> DecisionEngine:
    base = model or own
    return base if policy is None else DecisionEngine(base.portfolio, base.model, policy)


def _check_features(own: DecisionEngine, other: DecisionEngine, bundle: str) -> None:
    recorded = {feature.name: feature.categories for feature in own.portfolio.features}
    wanted = {feature.name: feature.categories for feature in other.portfolio.features}
    if absent := sorted(wanted.keys() - recorded.keys()):
        raise SimulationError(
            f"the model asks for features that decisions of bundle {bundle[:12]} did not record: {', '.join(absent)}"
        )
    if other_codes := sorted(name for name in wanted if wanted[name] != recorded[name]):
        raise SimulationError(
            f"the model has other categories than those recorded by bundle {bundle[:12]}: {', '.join(other_codes)}"
        )


def _take_again(
    frame: pd.DataFrame, answered: pd.DataFrame, rows: NDArray[np.intp], own: DecisionEngine, other: DecisionEngine
) -> None:
    recorded = answered.iloc[rows]
    again = explained(own, feature_matrix_of(recorded, own.portfolio.features))
    same = _reproduced(frame.iloc[rows], again)
    frame.loc[rows[~same], "kept"] = NOT_REPRODUCED
    rows = rows[same]
    if not len(rows):
        return
    decided = explained(other, feature_matrix_of(answered.iloc[rows], other.portfolio.features))
    frame.loc[rows, "simulated"] = decided.decisions
    frame.loc[rows, "simulated_score"] = decided.scores
    frame.loc[rows, "simulated_by"] = decided.decided_by
    frame.loc[rows, "simulated_codes"] = pd.Series(decided.reason_codes, index=rows, dtype=object)
    changed = rows[(frame["actual"].to_numpy()[rows] != decided.decisions).astype(bool)]
    columns = ["actual_by", "actual_codes", "simulated", "simulated_by", "simulated_codes"]
    moved = frame.loc[changed, columns].itertuples(index=False, name=None)
    frame.loc[changed, "why"] = [_why(*row, policy=other.policy) for row in moved]


def _reproduced(recorded: pd.DataFrame, again: Explained) -> NDArray[np.bool_]:
    scores = recorded["actual_score"].to_numpy()
    same_score = (scores == again.scores) | (np.isnan(scores) & np.isnan(again.scores))
    same_codes = [then == now for then, now in zip(recorded["actual_codes"], again.reason_codes, strict=True)]
    return np.asarray(
        same_score
        & (recorded["actual"].to_numpy() == again.decisions)
        & (recorded["actual_by"].to_numpy() == again.decided_by)
        & np.array(same_codes, dtype=bool),
        dtype=bool,
    )


def _why(
    before_by: str, before_codes: tuple[str, ...], after: str, by: str, codes: tuple[str, ...], *, policy: Policy
) -> str:
    """What led to the simulated decision, and which rule or fallback no longer does."""
    told = _grounds(after, by, codes, policy)
    if before_by != DecidedBy.MODEL and before_codes and before_codes != codes:
        return f"{before_codes[0]} no longer decides; {told}"
    return told


def _grounds(decision: str, by: str, codes: tuple[str, ...], policy: Policy) -> str:
    if by != DecidedBy.MODEL:
        return f"{by} {codes[0]}" if codes else by
    if decision == Outcome.APPROVED:
        return f"the score reaches approve_at {policy.approve_at}"
    if decision == Outcome.REJECTED:
        return f"the score is below review_at {policy.review_at}"
    return f"the score lies between review_at {policy.review_at} and approve_at {policy.approve_at}"
