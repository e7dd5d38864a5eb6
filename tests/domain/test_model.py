"""The scoring model: the compiled trees are the library's trees, their contributions are exact, and files are data."""

from dataclasses import fields, replace
from itertools import combinations
from math import factorial
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st

from cde_domain.features.feature import Feature
from cde_domain.model.baseline import reason_baseline
from cde_domain.model.compilation import CannotCompileError, compile_trees
from cde_domain.model.compiled import CompiledTrees
from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble
from cde_domain.model.monotone import monotone_violations
from cde_domain.model.scoring_model import ScoringModel, SigmoidCalibrator, model_digest
from cde_domain.training.boosting import BoostingSettings, fit, float64_threshold, to_dmatrix, to_ensemble
from cde_domain.training.challenger import cross_fitted_scores, fit_scoring_model, folds_of

FEW = tuple("abc")  # split off one by one
MANY = tuple(f"trade_{number}" for number in range(20))  # split as sets


def feature(name: str, *, monotone: int = 0, categories: tuple[str, ...] = ()) -> Feature:
    return Feature(name, lambda columns: columns[name], name, name, monotone=monotone, categories=categories)


FEATURES = (
    feature("income", monotone=1),
    feature("debt", monotone=-1),
    feature("age_of_file"),
    feature("purpose", categories=FEW),
    feature("trade", categories=MANY),
)


def applicants(rows: int, *, seed: int, trades: int = len(MANY)) -> np.ndarray:
    """Rows of `FEATURES` of which a tenth of every value is unknown; the doubles are no float32 numbers."""
    random = np.random.default_rng(seed)
    matrix = np.column_stack(
        [
            random.lognormal(10, 1, rows),
            random.exponential(5000, rows),
            random.normal(0, 1e-3, rows),
            random.integers(0, len(FEW), rows),
            random.integers(0, trades, rows),
        ]
    )
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    return matrix


def outcomes(matrix: np.ndarray, *, seed: int) -> np.ndarray:
    known = np.nan_to_num(matrix, nan=0.0)
    margin = 0.3 * np.log1p(known[:, 0]) - known[:, 1] / 5000 + 300 * known[:, 2] + np.sin(7 * known[:, 4])
    return (np.random.default_rng(seed).random(len(matrix)) < 1 / (1 + np.exp(-margin))).astype(float)


def train(depth: int) -> xgb.Booster:
    matrix = applicants(3000, seed=depth, trades=18)  # the last two trades are never seen
    settings = BoostingSettings(rounds=30, max_depth=depth, learning_rate=0.3, min_child_weight=1.0)
    return fit(FEATURES, matrix, outcomes(matrix, seed=depth), settings)


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 5])
def booster(request: pytest.FixtureRequest) -> xgb.Booster:
    return train(request.param)


@pytest.fixture(scope="module")
def trees(booster: xgb.Booster) -> CompiledTrees:
    return compile_trees(to_ensemble(booster))


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    return applicants(2000, seed=99)


def test_compiled_margins_are_those_of_xgboost(booster: xgb.Booster, trees: CompiledTrees, matrix: np.ndarray):
    theirs = booster.predict(to_dmatrix(FEATURES, matrix), output_margin=True)

    np.testing.assert_allclose(trees.margins(matrix), theirs, rtol=0, atol=1e-5)


def test_compiled_contributions_are_those_of_xgboost(booster: xgb.Booster, trees: CompiledTrees, matrix: np.ndarray):
    theirs = booster.predict(to_dmatrix(FEATURES, matrix), pred_contribs=True)

    np.testing.assert_allclose(trees.explain(matrix)[1], theirs[:, :-1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(trees.base[0], theirs[0, -1], rtol=0, atol=1e-5)


def test_base_and_contributions_add_up_to_the_margin(trees: CompiledTrees, matrix: np.ndarray):
    margins, contributions = trees.explain(matrix)

    np.testing.assert_allclose(trees.base[0] + contributions.sum(axis=1), margins, rtol=0, atol=1e-9)


def test_the_margin_has_the_same_bits_with_and_without_an_explanation(trees: CompiledTrees, matrix: np.ndarray):
    assert trees.explain(matrix)[0].tobytes() == trees.margins(matrix).tobytes()


def test_an_applicant_alone_has_the_same_bits_as_among_many(trees: CompiledTrees, matrix: np.ndarray):
    alone = [trees.explain(matrix[row : row + 1]) for row in range(200)]
    margins, contributions = trees.explain(matrix[:200])

    assert np.concatenate([margin for margin, _ in alone]).tobytes() == margins.tobytes()
    assert np.concatenate([contribution for _, contribution in alone]).tobytes() == contributions.tobytes()


def test_a_matrix_in_column_order_is_scored_alike(trees: CompiledTrees, matrix: np.ndarray):
    assert trees.margins(np.asfortranarray(matrix)).tobytes() == trees.margins(matrix).tobytes()


def test_trees_deeper_than_five_are_not_compiled():
    with pytest.raises(CannotCompileError, match="deeper than 5"):
        compile_trees(to_ensemble(train(6)))


def test_sixty_five_categories_are_refused_and_the_feature_is_named():
    trade = feature("trade", categories=tuple(map(str, range(65))))

    with pytest.raises(ValueError, match=r"trade has 65 categories; at most 64"):
        fit((trade,), np.zeros((10, 1)), np.arange(10) % 2.0, BoostingSettings(rounds=1))


def test_sixty_four_categories_are_served_as_xgboost_does():
    trade = feature("trade", categories=tuple(map(str, range(64))))
    codes = np.tile(np.arange(64.0), 40)[:, None]
    repaid = (np.random.default_rng(0).random(len(codes)) < np.where(codes[:, 0] % 3 == 0, 0.9, 0.3)).astype(float)
    booster = fit((trade,), codes, repaid, BoostingSettings(rounds=20))

    theirs = booster.predict(to_dmatrix((trade,), codes[:64]), output_margin=True)

    np.testing.assert_allclose(compile_trees(to_ensemble(booster)).margins(codes[:64]), theirs, rtol=0, atol=1e-5)
    assert len(np.unique(theirs)) > 1


FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda t: t > np.finfo(np.float32).min)


@given(threshold=FLOAT32, value=st.floats(allow_nan=False))
def test_a_compiled_threshold_parts_doubles_as_float32_would(threshold: float, value: float):
    with np.errstate(over="ignore"):
        expected = np.float32(value) < np.float32(threshold)

    assert (value < float64_threshold(np.array([threshold], dtype=np.float32))[0]) == expected


@given(threshold=FLOAT32, steps=st.integers(-3, 3), nearby=st.integers(-2, 2))
def test_a_compiled_threshold_is_exact_to_the_last_double(threshold: float, steps: int, nearby: int):
    single = np.float32(threshold)
    compiled = float64_threshold(np.array([single]))[0]
    gap = np.float64(single) - np.float64(np.nextafter(single, np.float32(-np.inf)))
    for value in (compiled, np.float64(single) + nearby * gap / 2):
        for _ in range(abs(steps)):
            value = np.nextafter(value, np.copysign(np.inf, steps))
        with np.errstate(over="ignore"):
            assert (value < compiled) == (np.float32(value) < single)


@pytest.mark.parametrize("threshold", [0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 1.0, -1.0, 16777216.0, 3.4028235e38])
def test_thresholds_at_the_edges_of_float32_are_exact(threshold: float):
    single = np.float32(threshold)
    compiled = float64_threshold(np.array([single]))[0]
    values = np.array([np.nextafter(compiled, -np.inf), compiled, np.nextafter(compiled, np.inf), -0.0, 0.0, 5e-324])

    with np.errstate(over="ignore"):
        assert ((values < compiled) == (values.astype(np.float32) < single)).all()


def random_tree(random: np.random.Generator, *, features: int, depth: int) -> Tree:
    """A tree with random splits, of which some repeat a feature on a path, and covers that add up."""
    nodes: list[dict[str, float]] = []

    def grow(level: int, cover: float) -> int:
        node = len(nodes)
        nodes.append({"left": LEAF, "right": LEAF, "value": random.normal(), "cover": cover, "feature": 0})
        if level < depth and (level == 0 or random.random() < 0.85):
            share = random.uniform(0.05, 0.95)
            nodes[node]["feature"] = int(random.integers(features))
            nodes[node]["left"] = grow(level + 1, cover * share)
            nodes[node]["right"] = grow(level + 1, cover * (1 - share))
        return node

    grow(0, 1000.0)
    column = {name: np.array([node[name] for node in nodes]) for name in nodes[0]}
    return Tree(
        left=column["left"].astype(np.int32),
        right=column["right"].astype(np.int32),
        feature=column["feature"].astype(np.int32),
        threshold=random.normal(0, 0.5, len(nodes)),
        categorical=column["feature"] == features - 1,  # the last feature is a category of 0 to 9
        left_categories=random.integers(0, 1 << 10, len(nodes)).astype(np.uint64),
        missing_left=random.random(len(nodes)) < 0.5,
        value=column["value"],
        cover=column["cover"],
    )


def expected_output(tree: Tree, row: np.ndarray, known: frozenset[int], node: int = 0) -> float:
    """What a tree gives on average when only some features of a row are known (Lundberg et al. 2020, algorithm 1)."""
    if tree.left[node] == LEAF:
        return float(tree.value[node])
    left, right, position = int(tree.left[node]), int(tree.right[node]), int(tree.feature[node])
    if position not in known:
        share = tree.cover[left] / tree.cover[node]
        return share * expected_output(tree, row, known, left) + (1 - share) * expected_output(tree, row, known, right)
    value = row[position]
    if np.isnan(value):
        goes_left = bool(tree.missing_left[node])
    elif tree.categorical[node]:
        goes_left = bool(int(tree.left_categories[node]) >> int(value) & 1)
    else:
        goes_left = bool(value < tree.threshold[node])
    return expected_output(tree, row, known, left if goes_left else right)


def shapley_by_definition(trees: tuple[Tree, ...], row: np.ndarray) -> np.ndarray:
    """The Shapley values of a row over all coalitions of features."""
    count = len(row)
    values = np.zeros(count)
    for position in range(count):
        others = [other for other in range(count) if other != position]
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for coalition in map(frozenset, combinations(others, size)):
                for tree in trees:
                    gain = expected_output(tree, row, coalition | {position}) - expected_output(tree, row, coalition)
                    values[position] += weight * gain
    return values


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_contributions_are_shapley_values_by_their_definition(depth: int):
    random = np.random.default_rng(depth)
    trees = tuple(random_tree(random, features=4, depth=depth) for _ in range(3))
    rows = np.column_stack([random.normal(0, 0.5, (8, 3)), random.integers(0, 10, 8)])
    rows[random.random(rows.shape) < 0.15] = np.nan
    compiled = compile_trees(TreeEnsemble(trees, bias=0.25, features=4))

    margins, contributions = compiled.explain(rows)

    everything = frozenset(range(4))
    for row, margin, contribution in zip(rows, margins, contributions, strict=True):
        np.testing.assert_allclose(contribution, shapley_by_definition(trees, row), rtol=0, atol=1e-12)
        assert margin == pytest.approx(0.25 + sum(expected_output(tree, row, everything) for tree in trees), abs=1e-12)
    mean = 0.25 + sum(expected_output(tree, rows[0], frozenset()) for tree in trees)
    assert compiled.base[0] == pytest.approx(mean, abs=1e-12)


def test_an_ensemble_whose_trees_never_split_scores_everyone_alike():
    stub = random_tree(np.random.default_rng(0), features=2, depth=0)

    margins, contributions = compile_trees(TreeEnsemble((stub, stub), 1.0, 2)).explain(np.ones((3, 2)))

    assert margins.tolist() == [1.0 + stub.value[0] + stub.value[0]] * 3
    assert not contributions.any()


def test_an_output_that_is_not_finite_is_not_compiled():
    tree = random_tree(np.random.default_rng(0), features=2, depth=2)
    tree.value[-1] = np.inf

    with pytest.raises(CannotCompileError, match="tree 0 has an output that is not finite"):
        compile_trees(TreeEnsemble((tree,), 0.0, 2))


def stump(position: int, low: float, high: float) -> Tree:
    """A tree that asks whether one feature is below 0, met by half of the training rows; unknown counts as below."""
    return Tree(
        left=np.array([1, LEAF, LEAF], dtype=np.int32),
        right=np.array([2, LEAF, LEAF], dtype=np.int32),
        feature=np.array([position, 0, 0], dtype=np.int32),
        threshold=np.zeros(3),
        categorical=np.zeros(3, dtype=bool),
        left_categories=np.zeros(3, dtype=np.uint64),
        missing_left=np.ones(3, dtype=bool),
        value=np.array([0.0, low, high]),
        cover=np.array([100.0, 50.0, 50.0]),
    )


def test_a_value_at_the_threshold_is_not_below_it():
    trees = compile_trees(TreeEnsemble((stump(0, 0, 1),), 0.0, 1))

    assert trees.margins(np.array([[-5e-324], [0.0], [-0.0], [5e-324]])).tolist() == [0.0, 1.0, 1.0, 1.0]
    assert trees.explain(np.array([[0.0]]))[0].tolist() == [1.0]


def test_a_planted_move_against_a_direction_is_found():
    directed = (feature("income", monotone=1), feature("debt", monotone=-1), feature("free"))
    trees = compile_trees(TreeEnsemble((stump(0, 0, 1), stump(1, 0, 1), stump(2, 1, 0)), 0.0, 3))
    rows = np.random.default_rng(0).normal(size=(50, 3))

    assert monotone_violations(trees, directed, rows) == {"income": 0, "debt": 50}


def test_a_constrained_model_moves_nowhere_against_a_direction(trees: CompiledTrees, matrix: np.ndarray):
    assert monotone_violations(trees, FEATURES, matrix, rows=100) == {"income": 0, "debt": 0}


def test_an_unconstrained_model_of_noise_is_caught():
    free = tuple(replace(item, monotone=0) for item in FEATURES)
    rows = applicants(1000, seed=1)
    noise = (np.random.default_rng(2).random(len(rows)) < 0.5).astype(float)
    trees = compile_trees(to_ensemble(fit(free, rows, noise, BoostingSettings(rounds=20))))

    assert all(count > 0 for count in monotone_violations(trees, FEATURES, rows).values())


@pytest.fixture(scope="module")
def model() -> ScoringModel:
    rows = applicants(800, seed=5)
    rows[np.isnan(rows[:, 0]), 0] = 1000.0  # income is always known
    fitted = fit_scoring_model(
        FEATURES,
        rows,
        outcomes(rows, seed=5),
        np.arange(len(rows)),
        BoostingSettings(rounds=10),
        approve_at=0.8,
        provenance={"made": "for a test"},
    )
    return fitted.scoring_model


def test_a_loaded_model_saves_to_the_same_digest(model: ScoringModel, tmp_path: Path):
    digest = model.save(tmp_path / "first")

    assert ScoringModel.load(tmp_path / "first").save(tmp_path / "second") == digest


def test_a_loaded_model_scores_to_the_bit(model: ScoringModel, matrix: np.ndarray, tmp_path: Path):
    model.save(tmp_path)

    assert ScoringModel.load(tmp_path).scores(matrix).tobytes() == model.scores(matrix).tobytes()


@pytest.mark.parametrize("name", [item.name for item in fields(CompiledTrees)])
def test_any_edited_array_changes_the_digest(name: str, model: ScoringModel, tmp_path: Path):
    digest = model.save(tmp_path)
    file = tmp_path / "trees" / f"{name}.npy"
    array = np.load(file)
    array[-1] = array[-1] == 0
    np.save(file, array)

    assert model_digest(tmp_path) != digest


def test_a_pickle_in_place_of_an_array_is_refused(model: ScoringModel, tmp_path: Path):
    model.save(tmp_path)
    np.save(tmp_path / "trees" / "table.npy", np.array([{"a": "dictionary"}]), allow_pickle=True)

    with pytest.raises(ValueError, match="pickle"):
        ScoringModel.load(tmp_path)


@pytest.mark.parametrize("slope", [0.0, -0.5, float("nan")])
def test_a_calibrator_must_increase(slope: float):
    with pytest.raises(ValueError, match="must increase"):
        SigmoidCalibrator(slope, 0.0)


MARGIN = st.floats(-50, 50)
CALIBRATORS = st.builds(SigmoidCalibrator, st.floats(0.01, 5), st.floats(-3, 3))


@given(calibrator=CALIBRATORS, margins=st.lists(MARGIN, min_size=2, max_size=30))
def test_a_higher_margin_never_gives_a_lower_score(calibrator: SigmoidCalibrator, margins: list[float]):
    assert (np.diff(calibrator.scores(np.sort(margins))) >= 0).all()


@given(calibrator=CALIBRATORS, margin=MARGIN)
def test_a_score_is_a_probability_of_six_decimals(calibrator: SigmoidCalibrator, margin: float):
    score = calibrator.scores(np.array([margin]))[0]

    assert 0 <= score <= 1
    assert float(f"{score:.6f}") == score


@given(calibrator=CALIBRATORS, margins=st.lists(MARGIN, min_size=1, max_size=40))
def test_a_margin_has_the_same_score_alone_and_among_many(calibrator: SigmoidCalibrator, margins: list[float]):
    alone = [calibrator.scores(np.array([margin]))[0] for margin in margins]

    assert calibrator.scores(np.array(margins)).tolist() == alone


def test_the_sigmoid_is_platts():
    scores = SigmoidCalibrator(2.0, -1.0).scores(np.array([0.5, 1.0, -1.0]))

    np.testing.assert_allclose(scores, [0.5, 0.731059, 0.047426], rtol=0, atol=1e-12)


def test_ranges_hold_what_training_knew(model: ScoringModel):
    rows = applicants(800, seed=5)
    rows[np.isnan(rows[:, 0]), 0] = 1000.0

    assert model.ranges == tuple((np.nanmin(column), np.nanmax(column)) for column in rows.T)
    assert model.unknown_seen == (False, True, True, True, True)


def test_the_ends_of_a_range_are_inside_and_beyond_is_named(model: ScoringModel):
    ends = np.array(model.ranges)

    assert model.outside_range(ends[:, 0]) == model.outside_range(ends[:, 1]) == []
    beyond = ends[:, 1].copy()
    beyond[1] = np.nextafter(beyond[1], np.inf)
    assert model.outside_range(beyond) == ["debt"]


def test_an_absence_that_training_never_met_is_outside(model: ScoringModel):
    nothing_known = np.full(len(FEATURES), np.nan)

    assert model.outside_range(nothing_known) == ["income"]


def test_a_feature_that_training_never_knew_has_no_range():
    unknown = np.full((200, 1), np.nan)
    rows = np.hstack([applicants(200, seed=1)[:, :1], unknown])
    rows[np.isnan(rows[:, 0]), 0] = 1.0
    repaid = (np.arange(200) % 3 > 0).astype(float)
    two = (FEATURES[0], FEATURES[2])

    model = fit_scoring_model(
        two, rows, repaid, np.arange(200), BoostingSettings(rounds=2), approve_at=0.8, provenance={}
    ).scoring_model

    assert model.ranges[1] is None
    assert model.outside_range(np.array([rows[0, 0], 0.0])) == ["age_of_file"]
    assert model.outside_range(np.array([rows[0, 0], np.nan])) == []


def test_the_baseline_is_of_applicants_scored_up_to_five_hundredths_above_the_cut_off():
    scores = np.concatenate([np.full(100, 0.79), np.full(300, 0.80), np.full(300, 0.849), np.full(300, 0.851)])
    contributions = np.concatenate([np.full((100, 1), 9.0), np.full((600, 1), 1.0), np.full((300, 1), 5.0)])

    assert reason_baseline(scores, contributions, 0.80).tolist() == [1.0]


def test_where_few_just_passed_the_nearest_two_hundred_above_are_the_baseline():
    scores = np.concatenate([np.full(50, 0.5), np.full(20, 0.81), np.linspace(0.9, 0.95, 400)])
    contributions = np.concatenate([np.full(50, 9.0), np.zeros(20), np.ones(180), np.full(220, 9.0)])[:, None]

    assert reason_baseline(scores, contributions, 0.80).tolist() == [0.9]


def test_where_nobody_passes_the_best_scored_are_the_baseline():
    scores = np.linspace(0.1, 0.5, 1000)
    contributions = np.where(np.arange(1000) >= 800, 1.0, 9.0)[:, None]

    assert reason_baseline(scores, contributions, 0.80).tolist() == [1.0]


def test_all_applications_of_a_customer_fall_into_one_fold():
    customers = np.random.default_rng(0).integers(0, 150, 600)

    fold = folds_of((np.arange(600) % 4 > 0).astype(float), customers, seed=1)

    assert sorted(set(fold.tolist())) == [0, 1, 2, 3, 4]
    assert all(len(set(fold[customers == customer])) == 1 for customer in set(customers.tolist()))


def test_a_model_without_skill_scores_everyone_near_the_repayment_rate():
    random = np.random.default_rng(0)
    repaid = (random.random(500) < 0.7).astype(float)
    margins = -repaid + random.normal(0, 0.1, 500)  # worse than chance, so no sigmoid increases with it

    scores = cross_fitted_scores(margins, repaid, np.arange(500) % 5)

    np.testing.assert_allclose(scores, repaid.mean(), rtol=0, atol=0.03)
    assert np.ptp(scores[::5]) < 2e-6  # within a fold nobody is told apart
