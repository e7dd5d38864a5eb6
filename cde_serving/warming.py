"""Loads code before the first applicant, who would wait a second for what is compiled and several for LIME."""

import contextlib

import msgspec
import numpy as np
import structlog

from cde_domain.clock import Clock
from cde_domain.features.columns import Nested
from cde_domain.lime_surrogate import lime_surrogate
from cde_domain.model.background import Background
from cde_domain.model.compilation import compile_trees
from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble
from cde_domain.model.scoring_model import SigmoidCalibrator
from cde_domain.release import Bundle

log = structlog.get_logger()


def warm_bundle(bundle: Bundle, clock: Clock) -> None:
    """Decide the portfolio's example once; a bundle that cannot is not served."""
    example = bundle.portfolio.application.model_validate_json(msgspec.json.encode(bundle.portfolio.example))
    bundle.engine.decide(example, clock().date())


def warm_kernels() -> None:
    """Run every compiled kernel once, so that the first promotion is served as fast as later ones."""
    split = Tree(
        left=np.array([1, LEAF, LEAF]),
        right=np.array([2, LEAF, LEAF]),
        feature=np.zeros(3, dtype=np.int32),
        threshold=np.zeros(3),
        categorical=np.zeros(3, dtype=np.bool_),
        left_categories=np.zeros(3, dtype=np.uint64),
        missing_left=np.zeros(3, dtype=np.bool_),
        value=np.array([0.0, -1.0, 1.0]),
        cover=np.array([2.0, 1.0, 1.0]),
    )
    margins, _ = compile_trees(TreeEnsemble((split,), bias=0.0, features=1)).explain(np.zeros((1, 1)))
    SigmoidCalibrator(slope=1.0, intercept=0.0).scores(margins)
    empty = Nested(fields={}, categories={}, offsets=np.array([0, 0]), known=np.array([True]))
    empty.sum(np.empty(0))
    empty.maximum(np.empty(0))


def warm_lime() -> None:
    """Import LIME with all that it needs, which takes seconds, and run it once; nothing happens where it is missing."""
    background = Background.of(np.array([[0.0], [1.0], [2.0], [3.0]]), (False,))
    with contextlib.suppress(ImportError):
        lime_surrogate(background, lambda rows: rows[:, 0], np.zeros(1), seed=0, samples=10)
        log.info("LIME loaded")
