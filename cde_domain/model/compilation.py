"""Compiling an ensemble of trees to the arrays of `compiled`."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from cde_domain.model.compiled import BLOCK_HEIGHT, CONDITIONS, MAX_DEPTH, RIGHT, WIDTH, CompiledTrees
from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble

Array = NDArray[np.float64]
Path = tuple[tuple[int, bool], ...]  # the inner nodes that are passed, and whether to the left


class CannotCompileError(ValueError):
    """The ensemble does not fit the compiled form."""


def compile_trees(ensemble: TreeEnsemble) -> CompiledTrees:
    """
    Compile an ensemble.

    Raises:
        CannotCompileError: a tree is deeper than `MAX_DEPTH`, or an output is not finite.
    """
    arrays: dict[str, list[float]] = {item.name: [] for item in fields(CompiledTrees)}
    arrays["bias"] = [ensemble.bias]
    splits = _Splits(ensemble)
    blocks: list[_Block] = []
    patterns = 0
    for number, tree in enumerate(ensemble.trees):
        _check_tree(tree, number)
        arrays["block_start"].append(len(blocks))
        _add_nodes(tree, splits, arrays)
        for block in _blocks(tree):
            unused = CONDITIONS - len(block.conditions)
            arrays["condition_mask"] += [*(condition.mask for condition in block.conditions), *[0] * unused]
            arrays["condition_want"] += [*(condition.want for condition in block.conditions), *[1] * unused]  # never
            arrays["block_feature"] += [*block.features, *[ensemble.features] * (CONDITIONS - len(block.features))]
            arrays["block_table"].append(patterns)
            patterns += block.patterns
            blocks.append(block)
    arrays["node_start"].append(len(arrays["node_key"]))
    arrays["block_start"].append(len(blocks))
    means = [leaf.value * prod(leaf.shares) for block in blocks for leaf in block.leaves]
    arrays["base"] = [ensemble.bias + sum(means)]
    arrays |= splits.arrays()
    types = {item.name: _dtype(item.type) for item in fields(CompiledTrees)}
    return CompiledTrees(
        **{name: np.array(values, dtype=types[name]) for name, values in arrays.items() if name != "table"},
        table=_table(blocks, patterns),
    )


def _dtype(annotation: object) -> type[np.generic]:
    return annotation.__args__[1].__args__[0]  # type: ignore[attr-defined]  # NDArray[T] is ndarray[shape, dtype[T]]


def _check_tree(tree: Tree, number: int) -> None:
    if not np.isfinite(tree.value).all():
        raise CannotCompileError(f"tree {number} has an output that is not finite")
    if _height(tree, 0) > MAX_DEPTH:
        raise CannotCompileError(f"tree {number} is deeper than {MAX_DEPTH}")


class _Splits:
    """The distinct splits of all trees, by which a row is ranked before it passes any."""

    def __init__(self, ensemble: TreeEnsemble) -> None:
        self._features = ensemble.features
        of_feature: dict[int, set[float]] = {feature: set() for feature in range(ensemble.features)}
        self._sets: dict[tuple[int, int, bool], int] = {}
        for tree in ensemble.trees:
            for node in _inner_nodes(tree):
                if tree.categorical[node]:
                    self._sets.setdefault(_category_set(tree, node), len(self._sets))
                else:
                    of_feature[int(tree.feature[node])].add(float(tree.threshold[node]))
        self._thresholds = {feature: sorted(thresholds) for feature, thresholds in of_feature.items()}
        most = max((len(thresholds) for thresholds in self._thresholds.values()), default=0)
        if max(most, 2 * ensemble.features + len(self._sets)) >= RIGHT:
            raise CannotCompileError(f"a feature is split at {most} thresholds, and ranks have 16 bits")
        self._rank = {
            (feature, threshold): rank
            for feature, thresholds in self._thresholds.items()
            for rank, threshold in enumerate(thresholds, start=1)
        }

    def key_and_rank(self, tree: Tree, node: int) -> tuple[int, int]:
        """The place of the rank that a node looks at, and the rank that it must be below to go left."""
        if tree.categorical[node]:
            return 2 * self._features + self._sets[_category_set(tree, node)], RIGHT
        feature = int(tree.feature[node])
        return 2 * feature + bool(tree.missing_left[node]), self._rank[feature, float(tree.threshold[node])]

    def arrays(self) -> dict[str, list[float]]:
        """The arrays that rows are ranked by."""
        lengths = [len(thresholds) for thresholds in self._thresholds.values()]
        return {
            "thresholds": [threshold for thresholds in self._thresholds.values() for threshold in thresholds],
            "threshold_start": [0, *np.cumsum(lengths).tolist()],
            "set_feature": [feature for feature, _, _ in self._sets],
            "set_left": [left for _, left, _ in self._sets],
            "set_missing_left": [missing_left for _, _, missing_left in self._sets],
        }


def _category_set(tree: Tree, node: int) -> tuple[int, int, bool]:
    return int(tree.feature[node]), int(tree.left_categories[node]), bool(tree.missing_left[node])


def _add_nodes(tree: Tree, splits: _Splits, arrays: dict[str, list[float]]) -> None:
    inner = _inner_nodes(tree)
    first_node, first_leaf = len(arrays["node_key"]), len(arrays["leaf_value"])
    position = {node: first_node + number for number, node in enumerate(inner)}
    position |= {leaf: -1 - (first_leaf + number) for number, (leaf, _) in enumerate(_leaves(tree, 0))}
    arrays["node_start"].append(first_node)
    arrays["root"].append(position[0])
    for node in inner:
        key, rank = splits.key_and_rank(tree, node)
        arrays["node_key"].append(key)
        arrays["node_rank"].append(rank)
        arrays["node_left"].append(position[int(tree.left[node])])
        arrays["node_right"].append(position[int(tree.right[node])])
    arrays["leaf_value"] += [float(tree.value[leaf]) for leaf, _ in _leaves(tree, 0)]


@dataclass(frozen=True)
class _Condition:
    """Splits on one feature, by their bits in `mask`, that are passed to the left if the bit is in `want` too."""

    feature: int
    mask: int
    want: int


@dataclass(frozen=True)
class _Leaf:
    """
    One leaf of a block: for each distinct feature of its path, the cover share that follows the path's splits on it.

    `pattern` tells, for every pattern of the block, which of these features' conditions are met (a bit each).
    """

    value: float
    features: tuple[int, ...]
    shares: tuple[float, ...]
    pattern: NDArray[np.int64]


@dataclass(frozen=True)
class _Block:
    """Up to four leaves, whose contributions are given by the bits of the `conditions` that a row meets."""

    conditions: tuple[_Condition, ...]
    leaves: tuple[_Leaf, ...]

    @property
    def patterns(self) -> int:
        return 1 << len(self.conditions)

    @property
    def features(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(condition.feature for condition in self.conditions))


def _blocks(tree: Tree) -> Iterator[_Block]:
    bit = {node: number for number, node in enumerate(_inner_nodes(tree))}
    pending: list[tuple[int, Path]] = [(0, ())]
    while pending:
        node, path = pending.pop()
        if _height(tree, node) <= BLOCK_HEIGHT:
            yield _block(tree, node, path, bit)
        else:
            pending.append((int(tree.right[node]), (*path, (node, False))))
            pending.append((int(tree.left[node]), (*path, (node, True))))


def _block(tree: Tree, root: int, path: Path, bit: dict[int, int]) -> _Block:
    """The block of the subtree at `root`, which `path` leads to."""
    before = _conditions(tree, path, bit)
    inside = {node: None for _, way in _leaves(tree, root) for node, _ in way}
    splits = [_Condition(int(tree.feature[node]), 1 << bit[node], 1 << bit[node]) for node in inside]
    conditions = (*before.values(), *splits)
    met = (np.arange(1 << len(conditions)) >> np.arange(len(conditions))[:, None] & 1).astype(bool)
    met_before = dict(zip(before, met[: len(before)], strict=True))
    met_split = dict(zip(inside, met[len(before) :], strict=True))
    leaves = []
    for leaf, way in _leaves(tree, root):
        shares: dict[int, float] = {}
        for node, left in (*path, *way):
            child = tree.left[node] if left else tree.right[node]
            feature = int(tree.feature[node])
            shares[feature] = shares.get(feature, 1.0) * float(tree.cover[child] / tree.cover[node])
        follows = {feature: met_before.get(feature, np.ones(met.shape[1], dtype=bool)) for feature in shares}
        for node, left in way:
            follows[int(tree.feature[node])] = follows[int(tree.feature[node])] & (met_split[node] == left)
        pattern = sum((column.astype(np.int64) << place for place, column in enumerate(follows.values())), np.int64(0))
        leaves.append(
            _Leaf(
                float(tree.value[leaf]), tuple(shares), tuple(shares.values()), np.broadcast_to(pattern, met.shape[1])
            )
        )
    return _Block(conditions, tuple(leaves))


def _conditions(tree: Tree, path: Path, bit: dict[int, int]) -> dict[int, _Condition]:
    """One condition for each distinct feature of a path."""
    conditions: dict[int, _Condition] = {}
    for node, left in path:
        feature = int(tree.feature[node])
        so_far = conditions.get(feature, _Condition(feature, 0, 0))
        conditions[feature] = _Condition(feature, so_far.mask | 1 << bit[node], so_far.want | int(left) << bit[node])
    return conditions


def _leaves(tree: Tree, root: int) -> Iterator[tuple[int, Path]]:
    """The leaves below a node from left to right, each with the way to it."""
    pending: list[tuple[int, Path]] = [(root, ())]
    while pending:
        node, path = pending.pop()
        if tree.left[node] == LEAF:
            yield node, path
        else:
            pending.append((int(tree.right[node]), (*path, (node, False))))
            pending.append((int(tree.left[node]), (*path, (node, True))))


def _inner_nodes(tree: Tree) -> list[int]:
    return [int(node) for node in np.flatnonzero(tree.left != LEAF)]


def _height(tree: Tree, node: int) -> int:
    return max(len(path) for _, path in _leaves(tree, node))


def _table(blocks: list[_Block], patterns: int) -> Array:
    """The rows of all blocks; the leaves of one depth are worked out at once."""
    of_leaf: dict[tuple[int, int], Array] = {}
    by_depth: dict[int, list[tuple[int, int]]] = {}
    for number, block in enumerate(blocks):
        for place, leaf in enumerate(block.leaves):
            by_depth.setdefault(len(leaf.shares), []).append((number, place))
    for depth, places in by_depth.items():
        shares = np.array([blocks[number].leaves[place].shares for number, place in places]).reshape(len(places), depth)
        of_leaf |= zip(places, _pattern_contributions(shares), strict=True)
    table = np.zeros((patterns, WIDTH))
    first = 0
    for number, block in enumerate(blocks):
        rows = table[first : first + block.patterns]
        for place, leaf in enumerate(block.leaves):
            everything = (1 << len(leaf.features)) - 1
            rows[leaf.pattern == everything, 0] = leaf.value
            columns = [1 + block.features.index(feature) for feature in leaf.features]
            rows[:, columns] += leaf.value * of_leaf[number, place][leaf.pattern]
        first += block.patterns
    return table


def _pattern_contributions(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Shapley values of leaves of output 1: cover shares of shape (leaves, slots) to values (leaves, patterns, slots).

    The game of a leaf is v(S) = product over S of "condition met" times product over the rest of the cover share.
    For slot j the values of all coalitions of a size are the coefficients of the polynomial
    product over k != j of (share_k + met_k z).
    """
    leaves, slots = shares.shape
    patterns = 1 << slots
    met = (np.arange(patterns)[:, None] >> np.arange(slots)) & 1
    weights = [factorial(size) * factorial(slots - size - 1) / factorial(slots) for size in range(slots)]
    values = np.empty((leaves, patterns, slots))
    for slot in range(slots):
        coefficients = np.zeros((leaves, patterns, slots))
        coefficients[..., 0] = 1.0
        for other in range(slots):
            if other != slot:
                raised = np.concatenate([np.zeros((leaves, patterns, 1)), coefficients[..., :-1]], axis=-1)
                coefficients = coefficients * shares[:, None, other, None] + raised * met[:, other, None]
        values[..., slot] = (met[:, slot] - shares[:, slot, None]) * (coefficients @ np.array(weights))
    return values
