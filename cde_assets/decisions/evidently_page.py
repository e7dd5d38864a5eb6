"""Evidently's page about drift: for people to look at; whether there is an alarm is decided before it is made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_assets.decisions.reporting import Champion, drop_old_pages
from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.monitoring.drift import Shift, feature_references
from cde_domain.decisions.monitoring.recorded import feature_matrix_of
from cde_domain.decisions.policy import Outcome
from cde_domain.digests import file_digest
from cde_domain.model.metrics import PsiReference
from cde_resources.portfolio import PortfolioResource

Array = NDArray[np.float64]

MOST_ROWS = 50_000  # beyond, Evidently takes minutes and its page tens of megabytes
DRAWN_ROWS = 10_000
METHOD = "psi_against_chance"


def write_page(
    path: Path, portfolio: PortfolioResource, champion: Champion, decisions: pd.DataFrame, found: Sequence[Shift]
) -> list[str]:
    """
    Write the page of a drift report; above 50,000 rows it shows a sample.

    Evidently measures nothing of its own here: it shows the indices and limits that the alarm was decided by, beside
    its pictures of both distributions. It refuses a column without a value, in training or today: of those, which are
    returned, it shows how many are known.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    _use_our_index(found)
    features = champion.bundle.portfolio.features
    categories = [feature.name for feature in features if feature.categories]
    shown = [shift.name for shift in found]
    frames = [_sample(frame)[shown] for frame in (_today(champion, decisions), _before(portfolio, champion))]
    empty = [name for name in shown if any(frame[name].isna().all() for frame in frames)]
    frames = [frame.assign(**{name: _whether_known(frame[name]) for name in empty}) for frame in frames]
    texts = [name for name in shown if name in categories or name in empty or name == "decision"]
    definition = DataDefinition(
        numerical_columns=[name for name in shown if name not in texts], categorical_columns=texts
    )
    today, before = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
    preset = DataDriftPreset(
        columns=shown,
        drift_share=0.5 / len(shown),  # one thing that has drifted is an alarm, and the headline says so
        num_method=METHOD,
        cat_method=METHOD,
        per_column_threshold={shift.name: shift.limit for shift in found},
        include_tests=False,
    )
    snapshot = Report([preset]).run(today, before)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    snapshot.save_html(str(unfinished))
    unfinished.replace(path)
    drop_old_pages(path.parent)
    return empty


def _use_our_index(found: Sequence[Shift]) -> None:
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    indices = {shift.name: shift.psi for shift in found}

    def index(reference: pd.Series, today: pd.Series, kind: ColumnType, threshold: float) -> tuple[float, bool]:
        del reference, kind
        psi = indices[str(today.name)]
        return psi, psi > threshold

    test = StatTest(
        name=METHOD,
        display_name="PSI, limit by sample size",
        allowed_feature_types=[ColumnType.Categorical, ColumnType.Numerical],
        default_threshold=1.0,
    )
    register_stattest(test, index)


def _today(champion: Champion, decisions: pd.DataFrame) -> pd.DataFrame:
    portfolio, model = champion.bundle.portfolio, champion.bundle.engine.model
    matrix = feature_matrix_of(decisions, portfolio.features)
    answered = decisions["decision"].where(decisions["bundle"] == champion.bundle.digest)
    return _frame(champion, matrix, model.scores(matrix), answered.to_numpy(dtype=object))


def _before(portfolio: PortfolioResource, champion: Champion) -> pd.DataFrame:
    """The champion's training set; drawn from what its bundle says of it where another has taken its place."""
    engine = champion.bundle.engine
    path = portfolio.artefacts / "training_set.parquet"
    if path.is_file() and file_digest(path) == engine.model.provenance.get("training_set_sha256"):
        table = pd.read_parquet(path, columns=list(engine.model.feature_names))
        matrix = table.to_numpy(dtype=np.float64)
        scores = engine.model.scores(matrix)
        decisions = decide_all(engine.portfolio.features, matrix, scores, engine.policy, engine.model)
        return _frame(champion, matrix, scores, decisions.astype(object))
    random, reference = np.random.default_rng(0), champion.reference
    columns = [
        drawn(of_one, bounds, random)
        for of_one, bounds in zip(feature_references(engine.model), engine.model.ranges, strict=True)
    ]
    scores, places = np.full(DRAWN_ROWS, np.nan), np.full(DRAWN_ROWS, np.nan)
    if reference is not None:
        scores = drawn(reference.scores, (0.0, 1.0), random)
        places = drawn(reference.decisions, (0.0, len(Outcome) - 1.0), random)
    names = np.array([*(outcome.value for outcome in Outcome), None], dtype=object)
    return _frame(champion, np.column_stack(columns), scores, names[np.nan_to_num(places, nan=-1).astype(int)])


def drawn(reference: PsiReference, bounds: tuple[float, float] | None, random: np.random.Generator) -> Array:
    """Values with the shares of a reference, even within its bins, of shape (10,000,)."""
    edges = np.array(reference.edges)
    low, high = bounds or (0.0, 0.0)
    bins = random.choice(len(reference.shares), DRAWN_ROWS, p=np.array(reference.shares))
    starts = np.concatenate([[low], edges, [np.nan]])
    a_value_each = len(edges) > 0 and edges[0] <= low  # the first bin lies below the smallest value
    ends = starts if a_value_each and edges[-1] >= high else np.concatenate([edges, [high, np.nan]])
    return starts[bins] + random.random(DRAWN_ROWS) * np.maximum(0, ends - starts)[bins]


def _whether_known(values: pd.Series) -> NDArray[np.object_]:
    return np.where(values.isna(), "unknown", "known").astype(object)


def _frame(champion: Champion, matrix: Array, scores: Array, decisions: NDArray[np.object_]) -> pd.DataFrame:
    numbers = np.where(np.isfinite(matrix), matrix, np.nan)  # no picture reaches to infinity
    frame = pd.DataFrame(numbers, columns=list(champion.bundle.engine.model.feature_names))
    for feature in champion.bundle.portfolio.features:
        if feature.categories:
            names = dict(enumerate(feature.categories))
            frame[feature.name] = frame[feature.name].map(names)
    return frame.assign(score=scores, decision=decisions)


def _sample(frame: pd.DataFrame) -> pd.DataFrame:
    return frame if len(frame) <= MOST_ROWS else frame.sample(MOST_ROWS, random_state=0)
