"""A way to learn as JSON, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.continuation import ContinuedLearner
from cde_domain.training.forest import ForestSettings
from cde_domain.training.histogram import HistogramSettings
from cde_domain.training.learner import Learner, TreeLearner
from cde_domain.training.options import TrainingOptions, TreatedLearner

TREES: Mapping[str, type] = {kind.kind: kind for kind in (BoostingSettings, HistogramSettings, ForestSettings)}


def learner_of(description: Mapping[str, Any]) -> TreeLearner:
    """The tree learner that `describe` described; of a continued one, that of the whole model."""
    learner: TreeLearner = TREES[description["kind"]](**description["settings"])
    return treated(learner, TrainingOptions(**description.get("options", {})))


def treated(learner: TreeLearner, options: TrainingOptions) -> TreeLearner:
    """A learner with the options of training."""
    return learner if options.are_off else TreatedLearner(learner, options)


def describe(learner: Learner | None) -> dict[str, Any]:
    """A learner as JSON."""
    if isinstance(learner, ContinuedLearner):
        return learner.describe()
    if isinstance(learner, TreatedLearner):
        return describe(learner.learner) | {"options": asdict(learner.options)}
    assert isinstance(learner, BoostingSettings | HistogramSettings | ForestSettings)
    return {"kind": learner.kind, "settings": asdict(learner)}
