"""The compiled trees are the library's trees, and their contributions are exact."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st

from cde_domain.model.compilation import CannotCompileError, compile_trees
from cde_domain.model.compiled import CompiledTrees
from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble
from cde_domain.training.boosting import BoostingSettings, fit, float64_threshold, to_dmatrix, to_ensemble
from tests.domain.model.trades import FEATURES, feature, stump, train


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


def test_a_value_at_the_threshold_is_not_below_it():
    trees = compile_trees(TreeEnsemble((stump(0, 0, 1),), 0.0, 1))

    assert trees.margins(np.array([[-5e-324], [0.0], [-0.0], [5e-324]])).tolist() == [0.0, 1.0, 1.0, 1.0]
    assert trees.explain(np.array([[0.0]]))[0].tolist() == [1.0]
