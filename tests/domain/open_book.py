"""A model whose contributions can be read off, and what else tests of decisions are made of."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cde_domain.decisions.engine import Decision, DecisionEngine
from cde_domain.decisions.policy import Condition, Outcome, Policy, Rule
from cde_domain.features.feature import Feature
from cde_domain.model.compilation import compile_trees
from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble
from cde_domain.model.scoring_model import ScoringModel, SigmoidCalibrator
from tests.support import TinyLoans

CUT_OFFS: Mapping[str, Any] = {"version": "1", "approve_at": 0.8, "review_at": 0.4}


def rule(code: str, when: Condition, decision: Outcome = Outcome.REJECTED) -> Rule:
    return Rule(code=code, when=when, decision=decision, reason=f"because of {code}")


# A model whose contributions can be read off: one stump a feature, which gives +weight from 0 on and -weight below.
WEIGHTS = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
NAMES = ("income", "savings", "tenure", "history", "deposit", "purpose")
BAD, GOOD, UNKNOWN = -1.0, 1.0, float("nan")
PURPOSES = ("yacht", "car", "house")


def stump(position: int, weight: float) -> Tree:
    categorical = NAMES[position] == "purpose"
    return Tree(
        left=np.array([1, LEAF, LEAF], dtype=np.int32),
        right=np.array([2, LEAF, LEAF], dtype=np.int32),
        feature=np.array([position, 0, 0], dtype=np.int32),
        threshold=np.zeros(3),
        categorical=np.array([categorical, False, False]),
        left_categories=np.array([1, 0, 0], dtype=np.uint64),  # the yacht
        missing_left=np.ones(3, dtype=bool),
        value=np.array([0.0, -weight, weight]),
        cover=np.array([100.0, 50.0, 50.0]),
    )


def open_book(
    tiny: TinyLoans,
    *,
    rules: tuple[Rule, ...] = (),
    baseline: tuple[float, ...] = WEIGHTS,
    intercept: float = 0.0,
    unknown_seen: bool = True,
) -> DecisionEngine:
    """An engine of that model; by default the applicant who just passed has everything in their favour."""
    features = tuple(
        Feature(name, lambda columns: columns["annual_income"], f"The {name}", f"{name} is low", monotone=1)
        if name != "purpose"
        else Feature(name, lambda columns: columns["loan_purpose"], "The purpose", "It is a yacht", categories=PURPOSES)
        for name in NAMES
    )
    model = ScoringModel(
        trees=compile_trees(TreeEnsemble(tuple(map(stump, range(6), WEIGHTS)), 0.0, 6)),
        calibrator=SigmoidCalibrator(1.0, intercept),
        feature_names=NAMES,
        ranges=((-1.0, 1.0),) * 5 + ((0.0, 2.0),),
        unknown_seen=(unknown_seen,) * 6,
        reason_baseline=baseline,
    )
    return DecisionEngine(replace(tiny.portfolio, features=features), model, Policy(**CUT_OFFS, rules=rules))


def decide(engine: DecisionEngine, *values: float) -> Decision:
    return engine.decide_features(np.array([values]))
