"""Explanations that take too long for every answer: LIME and importance (`full`), and recourse (`counterfactual`)."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any

import msgspec
import numpy as np
from pydantic import BaseModel

from cde_domain.decisions.engine import DecidedBy
from cde_domain.decisions.policy import Outcome
from cde_domain.decisions.recourse import RecourseFinder
from cde_domain.decisions.review import OVERRULING
from cde_domain.lime_surrogate import SAMPLES, lime_surrogate
from cde_domain.release import Bundle
from cde_serving.answers import Answer, Explanation
from cde_serving.garbage import keep_what_is_loaded
from cde_serving.records.replay import matrix_of
from cde_serving.warming import warm_lime

MOST_WAITING = 32
FINDERS = 4


class Explain(Enum):
    """How far a decision is explained."""

    PLAIN = "plain"
    FULL = "full"
    COUNTERFACTUAL = "counterfactual"


class ExplainerBusyError(RuntimeError):
    """Too many requests wait for an explanation that takes long."""


class Lime(msgspec.Struct, frozen=True, kw_only=True):
    """
    LIME's weights in margin space: a second opinion, never the source of a reason.

    They are drawn with `seed`, which follows from the decision's id; `fit` is the weighted R² of the linear model.
    """

    weights: Mapping[str, float]
    fit: float
    samples: int
    seed: int


class FullExplanation(Explanation, frozen=True, kw_only=True):
    """
    With `?explain=full`: LIME, and how much each feature matters to the model at all.

    `importance` is the mean size of a feature's contributions over the training set, in margin space, the largest
    first. Either is null where it is not available, and `unavailable` says why.
    """

    lime: Lime | None
    importance: Mapping[str, float] | None
    unavailable: tuple[str, ...] = ()


class RecourseChange(msgspec.Struct, frozen=True, kw_only=True):
    """One field to change, with a sentence for the applicant."""

    field: str
    before: float | str
    after: float | str
    sentence: str


class Counterfactual(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest change, of what the applicant can change, that the engine approves, and the score it would give."""

    changes: tuple[RecourseChange, ...]
    score: float


class CounterfactualExplanation(Explanation, frozen=True, kw_only=True):
    """With `?explain=counterfactual`; null where nothing is known to help, or nothing needs to."""

    counterfactual: Counterfactual | None
    unavailable: tuple[str, ...] = ()


class Explainer:
    """Explains one decision at a time in a thread of its own: the event loop and other answers go on."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explainer")
        self._waiting = 0
        self._finders: OrderedDict[str, RecourseFinder] = OrderedDict()

    def warm(self) -> None:
        """Load what explains while the service answers already; who asks for an explanation meanwhile waits for it."""
        self._threads.submit(_warm)

    async def explain(
        self,
        explain: Explain,
        bundle: Bundle,
        application: BaseModel,
        answer: Answer,
        features: Mapping[str, float | str | None],
    ) -> Explanation:
        """
        The explanation of an answer with what was asked for added.

        Raises:
            ExplainerBusyError: too many wait already.
        """
        if self._waiting >= MOST_WAITING:
            raise ExplainerBusyError(f"{MOST_WAITING} explanations wait already")
        work: Callable[[], Mapping[str, Any]]
        kind: type[Explanation]
        if explain is Explain.FULL:
            kind, work = FullExplanation, lambda: _full(bundle, features, answer.decision_id)
        else:
            kind, work = CounterfactualExplanation, lambda: self._recourse(bundle, application, answer)
        self._waiting += 1
        try:
            extra = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
        return kind(**{name: getattr(answer.explanation, name) for name in Explanation.__struct_fields__}, **extra)

    def close(self) -> None:
        """Finish what is being explained."""
        self._threads.shutdown(cancel_futures=True)

    def _recourse(self, bundle: Bundle, application: BaseModel, answer: Answer) -> Mapping[str, Any]:
        if answer.decision is Outcome.APPROVED:
            return {"counterfactual": None, "unavailable": ("approved as it is",)}
        if answer.explanation.decided_by is DecidedBy.FALLBACK and answer.score is None:
            return {"counterfactual": None, "unavailable": ("the application could not be scored",)}
        if set(answer.reason_codes) & set(OVERRULING):
            return {"counterfactual": None, "unavailable": ("a person decides, whatever the application says",)}
        try:
            found = self._finder(bundle).find(application, answer.applied_at.date())
        except Exception as error:  # the search runs the portfolio's code on values nobody sent
            return {"counterfactual": None, "unavailable": (f"the search failed with {type(error).__name__}",)}
        if found is None:
            return {"counterfactual": None, "unavailable": ("nothing the applicant can change is known to help",)}
        changes = tuple(
            RecourseChange(field=one.field, before=one.before, after=one.after, sentence=one.sentence)
            for one in found.changes
        )
        return {"counterfactual": Counterfactual(changes=changes, score=found.score)}

    def _finder(self, bundle: Bundle) -> RecourseFinder:
        if bundle.digest not in self._finders:
            self._finders[bundle.digest] = RecourseFinder(bundle.engine)
            if len(self._finders) > FINDERS:
                self._finders.popitem(last=False)
        return self._finders[bundle.digest]


def _full(bundle: Bundle, features: Mapping[str, float | str | None], decision_id: str) -> Mapping[str, Any]:
    model = bundle.engine.model
    unavailable = []
    lime = None
    if not features:
        unavailable.append("lime: the application could not be scored")
    elif model.background is None:
        unavailable.append("lime: the model was made before its background was kept")
    else:
        seed = int(decision_id[-8:], 16)
        row = matrix_of(bundle.portfolio.features, features)[0]
        try:
            found = lime_surrogate(model.background, model.trees.margins, row, seed=seed)
        except ImportError:
            unavailable.append("lime: the package lime is not installed in this service")
        except Exception as error:  # a second opinion that fails takes no decision with it
            unavailable.append(f"lime: failed with {type(error).__name__}")
        else:
            weights = dict(zip(model.feature_names, found.weights.tolist(), strict=True))
            lime = Lime(weights=weights, fit=found.fit, samples=SAMPLES, seed=seed)
    if not model.importance:
        unavailable.append("importance: the model was made before it was measured")
    order = np.argsort(-np.array(model.importance), kind="stable").tolist()
    importance = {model.feature_names[place]: model.importance[place] for place in order}
    return {"lime": lime, "importance": importance or None, "unavailable": tuple(unavailable)}


def _warm() -> None:
    warm_lime()
    keep_what_is_loaded()
