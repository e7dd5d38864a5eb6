"""A model can be made again: the same loans and seed give the same digest, in any process, on any threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAIN = """
import json, sys, tempfile
from dataclasses import replace
from pathlib import Path
import numpy as np
from cde_domain.training.challenger import fit_scoring_model
from cde_domain.training.continuation import continued
from cde_domain.training.options import TrainingOptions, TreatedLearner
from tests.domain.training_loans import FEATURES, LEARNERS, ROWS, loans

matrix, repaid = loans()
champion = LEARNERS[0].fit(FEATURES, *loans(seed=5))
treated = TreatedLearner(LEARNERS[0], TrainingOptions("winsorise", "smote", True))
learners = {learner.kind: learner for learner in LEARNERS}
learners |= {"treated": treated, "continued": continued(champion, LEARNERS[0], 10, {})}
digests = {}
for name in sys.argv[1:] or learners:
    fitted = fit_scoring_model(
        FEATURES, matrix, repaid, np.arange(ROWS) // 2, learners[name], approve_at=0.8, provenance={"seed": 3}
    )
    with tempfile.TemporaryDirectory() as folder:
        digests[name] = fitted.scoring_model.save(Path(folder) / "served")
print(json.dumps(digests))
"""


def _digests(*only: str, **environment: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *only],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_kind_of_model_is_the_same_to_the_bit_in_another_process_with_other_threads():
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    crowd = {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4", "PYTHONHASHSEED": "4242"}

    first, second = _digests(**alone), _digests(**crowd)

    assert set(first) == {"xgboost", "random_forest", "hist_gradient_boosting", "treated", "continued"}
    assert first == second


def test_what_was_trained_before_in_the_same_process_leaves_no_trace():
    assert _digests("random_forest", "continued")["continued"] == _digests("continued")["continued"]
