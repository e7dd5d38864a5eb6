"""Trees compiled to arrays that give the margin and its exact Shapley values in one pass.

The path-dependent Shapley values of one leaf (Lundberg et al. 2020, Tree SHAP) depend on a row only through which of
the leaf's path conditions the row meets. Conditions on the same feature count as one, so a leaf at depth d has at most
2^d patterns, each with its contributions worked out once, here. Scoring then looks patterns up.
"""

from dataclasses import dataclass, fields
from math import factorial, prod
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble

MAX_DEPTH = 5  # a leaf has 2^depth patterns and a tree's splits fit one 32-bit word


class CannotCompileError(ValueError):
    """The ensemble does not fit the compiled form."""


@dataclass(frozen=True)
class CompiledTrees:
    """
    The arrays of a compiled ensemble.

    Nodes are the inner nodes of all trees in order (children: >= 0 a node, < 0 leaf `-1 - child`); `bias` is the
    margin of no tree, `base` the mean margin, weighted by cover. Slots are the distinct features of a
    leaf's path: a row meets slot s if `splits & slot_mask[s] == slot_want[s]`, where `splits` has bit i set if the row
    goes left at the tree's i-th node.
    """

    bias: NDArray[np.float64]
    base: NDArray[np.float64]
    root: NDArray[np.int32]
    node_start: NDArray[np.uint32]
    node_feature: NDArray[np.uint32]
    node_threshold: NDArray[np.float64]
    node_categorical: NDArray[np.bool_]
    node_left_categories: NDArray[np.uint64]
    node_missing_left: NDArray[np.bool_]
    node_left: NDArray[np.int32]
    node_right: NDArray[np.int32]
    leaf_start: NDArray[np.uint32]
    leaf_value: NDArray[np.float64]
    leaf_table: NDArray[np.uint32]
    slot_start: NDArray[np.uint32]
    slot_feature: NDArray[np.uint32]
    slot_mask: NDArray[np.uint32]
    slot_want: NDArray[np.uint32]
    table: NDArray[np.float64]
    features: NDArray[np.int32]

    @property
    def megabytes(self) -> float:
        """What the arrays take in memory and on disk."""
        return sum(getattr(self, item.name).nbytes for item in fields(self)) / 1e6

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The margin of each row of a (rows, features) matrix: the reached leaves added in tree order."""
        return _margins(np.ascontiguousarray(matrix), *self._routing())

    def explain(self, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Margins of shape (rows,), and contributions of shape (rows, features) that add up to them from `base`."""
        return _explain(
            np.ascontiguousarray(matrix),
            self.bias[0],
            self.node_start,
            self.node_feature,
            self.node_threshold,
            self.node_categorical,
            self.node_left_categories,
            self.node_missing_left,
            self.leaf_start,
            self.leaf_value,
            self.leaf_table,
            self.slot_start,
            self.slot_feature,
            self.slot_mask,
            self.slot_want,
            self.table,
        )

    def _routing(self) -> tuple[NDArray[np.generic] | float, ...]:
        return (
            self.bias[0],
            self.root,
            self.node_feature,
            self.node_threshold,
            self.node_categorical,
            self.node_left_categories,
            self.node_missing_left,
            self.node_left,
            self.node_right,
            self.leaf_value,
        )

    def save(self, folder: Path) -> None:
        """Write one `.npy` file an array."""
        folder.mkdir(parents=True, exist_ok=True)
        for item in fields(self):
            np.save(folder / f"{item.name}.npy", getattr(self, item.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> "CompiledTrees":
        """Read what `save` wrote; pickled content is refused."""
        return cls(**{item.name: np.load(folder / f"{item.name}.npy", allow_pickle=False) for item in fields(cls)})


@njit(cache=True, nogil=True)
def _goes_left(value, threshold, categorical, left_categories, missing_left):  # type: ignore[no-untyped-def]
    if categorical:
        if value != value:
            return missing_left
        return (left_categories >> np.uint64(value)) & np.uint64(1) != 0
    return (value < threshold) | ((value != value) & missing_left)  # without a branch: its outcome is a coin toss


@njit(cache=True, nogil=True)
def _margins(  # type: ignore[no-untyped-def]
    matrix, bias, root, feature, threshold, categorical, left_categories, missing_left, left, right, leaf_value
):
    margins = np.empty(len(matrix))
    for row in range(len(matrix)):
        margin = bias
        for tree in range(len(root)):
            node = root[tree]
            while node >= 0:
                goes_left = _goes_left(
                    matrix[row, feature[node]],
                    threshold[node],
                    categorical[node],
                    left_categories[node],
                    missing_left[node],
                )
                node = left[node] if goes_left else right[node]
            margin += leaf_value[-1 - node]
        margins[row] = margin
    return margins


@njit(cache=True, nogil=True)
def _explain(  # type: ignore[no-untyped-def]
    matrix,
    bias,
    node_start,
    node_feature,
    node_threshold,
    node_categorical,
    node_left_categories,
    node_missing_left,
    leaf_start,
    leaf_value,
    leaf_table,
    slot_start,
    slot_feature,
    slot_mask,
    slot_want,
    table,
):
    # Indices are unsigned throughout: for signed ones numba tests at every access whether they count from the end.
    rows, features = matrix.shape
    margins = np.empty(rows)
    contributions = np.zeros((rows, features))
    for row in range(rows):
        values, shares = matrix[row], contributions[row]
        margin = bias
        for tree in range(len(node_start) - 1):
            splits, place = np.uint32(0), np.uint32(0)
            for node in range(np.uintp(node_start[tree]), np.uintp(node_start[tree + 1])):
                goes_left = _goes_left(
                    values[node_feature[node]],
                    node_threshold[node],
                    node_categorical[node],
                    node_left_categories[node],
                    node_missing_left[node],
                )
                splits |= np.uint32(goes_left) << place
                place += np.uint32(1)
            for leaf in range(np.uintp(leaf_start[tree]), np.uintp(leaf_start[tree + 1])):
                first, last = np.uintp(slot_start[leaf]), np.uintp(slot_start[leaf + np.uintp(1)])
                pattern, bit = np.uint32(0), np.uint32(1)
                for slot in range(first, last):
                    if (splits & slot_mask[slot]) == slot_want[slot]:
                        pattern |= bit
                    bit <<= np.uint32(1)
                if pattern == bit - np.uint32(1):
                    margin += leaf_value[leaf]
                start = np.uintp(leaf_table[leaf]) + np.uintp(pattern) * (last - first)
                for slot in range(first, last):
                    shares[slot_feature[slot]] += table[start + (slot - first)]
        margins[row] = margin
    return margins, contributions


@dataclass(frozen=True)
class _Slot:
    """One distinct feature of a leaf's path: the splits it takes part in and the cover share that follows them."""

    feature: int
    mask: int
    want: int
    share: float


def compile_trees(ensemble: TreeEnsemble) -> CompiledTrees:
    """
    Compile an ensemble.

    Raises:
        CannotCompileError: a tree is deeper than `MAX_DEPTH`, or an output is not finite.
    """
    arrays: dict[str, list[float]] = {item.name: [] for item in fields(CompiledTrees)}
    arrays["bias"] = [ensemble.bias]
    arrays["features"] = [ensemble.features]
    shares: list[list[float]] = []
    table_size = 0
    base = ensemble.bias
    for number, tree in enumerate(ensemble.trees):
        if not np.isfinite(tree.value).all():
            raise CannotCompileError(f"tree {number} has an output that is not finite")
        leaves = _leaf_slots(tree, number)
        inner = np.flatnonzero(tree.left != LEAF)
        first_node, first_leaf = len(arrays["node_feature"]), len(arrays["leaf_value"])
        position = {int(node): first_node + i for i, node in enumerate(inner)}
        position |= {leaf: -1 - (first_leaf + i) for i, leaf in enumerate(leaves)}
        arrays["node_start"].append(first_node)
        arrays["leaf_start"].append(first_leaf)
        arrays["root"].append(position[0])
        for node in inner:
            arrays["node_feature"].append(tree.feature[node])
            arrays["node_threshold"].append(tree.threshold[node])
            arrays["node_categorical"].append(tree.categorical[node])
            arrays["node_left_categories"].append(tree.left_categories[node])
            arrays["node_missing_left"].append(tree.missing_left[node])
            arrays["node_left"].append(position[int(tree.left[node])])
            arrays["node_right"].append(position[int(tree.right[node])])
        for leaf, slots in leaves.items():
            value = float(tree.value[leaf])
            arrays["leaf_value"].append(value)
            arrays["leaf_table"].append(table_size)
            arrays["slot_start"].append(len(arrays["slot_feature"]))
            for slot in slots:
                arrays["slot_feature"].append(slot.feature)
                arrays["slot_mask"].append(slot.mask)
                arrays["slot_want"].append(slot.want)
            shares.append([slot.share for slot in slots])
            table_size += len(slots) << len(slots)
            base += value * prod(shares[-1])
    arrays["base"] = [base]
    arrays["node_start"].append(len(arrays["node_feature"]))
    arrays["leaf_start"].append(len(arrays["leaf_value"]))
    arrays["slot_start"].append(len(arrays["slot_feature"]))
    types = {item.name: _dtype(item.type) for item in fields(CompiledTrees)}
    table = np.concatenate([np.empty(0), *_tables(arrays["leaf_value"], shares)])
    return CompiledTrees(
        **{name: np.array(values, dtype=types[name]) for name, values in arrays.items() if name != "table"}, table=table
    )


def _dtype(annotation: object) -> type[np.generic]:
    return annotation.__args__[1].__args__[0]  # type: ignore[attr-defined]  # NDArray[T] is ndarray[shape, dtype[T]]


def _leaf_slots(tree: Tree, number: int) -> dict[int, list[_Slot]]:
    bit = {int(node): i for i, node in enumerate(np.flatnonzero(tree.left != LEAF))}
    leaves: dict[int, list[_Slot]] = {}
    pending: list[tuple[int, list[tuple[int, bool]]]] = [(0, [])]
    while pending:
        node, path = pending.pop()
        if len(path) > MAX_DEPTH:
            raise CannotCompileError(f"tree {number} is deeper than {MAX_DEPTH}")
        if tree.left[node] == LEAF:
            leaves[node] = _slots(tree, path, bit)
        else:
            pending.append((int(tree.right[node]), [*path, (node, False)]))
            pending.append((int(tree.left[node]), [*path, (node, True)]))
    return leaves


def _slots(tree: Tree, path: list[tuple[int, bool]], bit: dict[int, int]) -> list[_Slot]:
    slots: dict[int, _Slot] = {}
    for node, left in path:
        feature = int(tree.feature[node])
        child = tree.left[node] if left else tree.right[node]
        share = float(tree.cover[child] / tree.cover[node])
        before = slots.get(feature, _Slot(feature, mask=0, want=0, share=1.0))
        slots[feature] = _Slot(
            feature,
            mask=before.mask | 1 << bit[node],
            want=before.want | int(left) << bit[node],
            share=before.share * share,
        )
    return list(slots.values())


def _tables(values: list[float], shares: list[list[float]]) -> list[NDArray[np.float64]]:
    """The flattened (patterns, slots) table of every leaf, worked out for all leaves of a depth at once."""
    tables: list[NDArray[np.float64]] = [np.empty(0)] * len(values)
    depths = np.array([len(leaf) for leaf in shares])
    for depth in np.unique(depths):
        leaves = np.flatnonzero(depths == depth)
        outputs = np.array([values[leaf] for leaf in leaves])
        contributions = _pattern_contributions(np.array([shares[leaf] for leaf in leaves]).reshape(len(leaves), depth))
        for leaf, table in zip(leaves, outputs[:, None, None] * contributions, strict=True):
            tables[leaf] = table.ravel()
    return tables


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
