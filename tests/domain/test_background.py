"""The background that travels with a model: statistics from which LIME gives what it would give from the rows."""

import json
from pathlib import Path

import numpy as np
from lime.lime_tabular import LimeTabularExplainer

from cde_domain.decisions.engine import DecisionEngine
from cde_domain.lime_surrogate import lime_surrogate
from cde_domain.model.background import Background
from cde_domain.model.scoring_model import ScoringModel
from tests.support import training_rows


def test_lime_gives_the_same_weights_from_statistics_as_from_the_rows(tiny_engine: DecisionEngine):
    matrix, _ = training_rows(seed=1)
    background = Background.of(matrix, (False, False, False, False, True))
    known = background.filled(matrix)

    for seed in range(3):
        own = LimeTabularExplainer(known, mode="regression", categorical_features=[4], random_state=seed)
        found = own.explain_instance(known[7], tiny_engine.model.trees.margins, num_features=5, num_samples=1000)
        weights = lime_surrogate(background, tiny_engine.model.trees.margins, matrix[7], seed=seed).weights

        assert dict(found.local_exp[1]) == dict(enumerate(weights.tolist()))


def test_a_model_brings_its_background_and_importance_along(tiny_engine: DecisionEngine, tmp_path: Path):
    matrix, _ = training_rows(seed=1)
    tiny_engine.model.save(tmp_path)
    model = ScoringModel.load(tmp_path)
    _, contributions = model.trees.explain(matrix)

    assert model.background == tiny_engine.model.background == Background.of(matrix, (False,) * 4 + (True,))
    assert model.importance == tuple(np.abs(contributions).mean(axis=0).tolist())


def test_a_model_of_an_earlier_version_has_neither(tiny_engine: DecisionEngine, tmp_path: Path):
    tiny_engine.model.save(tmp_path)
    content = json.loads((tmp_path / "model.json").read_text())
    del content["importance"], content["background"]
    (tmp_path / "model.json").write_text(json.dumps(content))

    model = ScoringModel.load(tmp_path)

    assert (None, ()) == (model.background, model.importance)
