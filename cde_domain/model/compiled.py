"""Trees compiled to arrays that give the margin and its exact Shapley values in one pass.

The path-dependent Shapley values of one leaf (Lundberg et al. 2020, Tree SHAP) depend on a row only through which of
the leaf's path conditions the row meets. Up to four neighbouring leaves make a block: what leads to it and the splits
inside it are at most six conditions, so a block has at most 64 patterns, each with its contributions worked out once,
in `compilation`. Scoring looks patterns up: one cache line a block, and few enough to stay in the processor's cache.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

MAX_DEPTH = 5  # a tree's splits fit one 32-bit word
BLOCK_HEIGHT = 2  # of a block's subtree: with one more, the patterns would not fit the processor's cache
CONDITIONS = MAX_DEPTH - BLOCK_HEIGHT + 2**BLOCK_HEIGHT - 1  # of a block at most; it has no more features than that
LEFT, RIGHT = 0, 65_535  # ranks that are below, or not below, the rank of any node
ROWS_TOGETHER = 64  # that go through a tree one after the other
WIDTH = 8  # doubles of a pattern: the reached leaf's value, a contribution a feature, and what fills the cache line


@dataclass(frozen=True)
class CompiledTrees:
    """
    The arrays of a compiled ensemble.

    `bias` is the margin of no tree, `base` the mean margin, weighted by cover. A row goes left at an inner node if
    `ranks[node_key] < node_rank`. The ranks of feature f say how many of its `thresholds` (in order, beginning at
    `threshold_start`) are not above the row's value: rank 2f for nodes that send missing values to the right, rank
    2f + 1 for those that send them to the left. Behind them comes a rank for each distinct categorical split
    (`set_feature`, the bits of its `set_left` categories, `set_missing_left`): `LEFT` or `RIGHT`. Children `node_left`
    and `node_right` are nodes (>= 0) or the leaf `-1 - child`, over the inner nodes of all trees in order.

    A block has `CONDITIONS` conditions and features: a row meets condition c if `splits & condition_mask[c] ==
    condition_want[c]`, where `splits` has bit i set if the row goes left at the tree's i-th node. The bits of the
    conditions met choose one of the block's rows of `table`, of shape (patterns of all blocks, `WIDTH`), which begin at
    `block_table`.
    """

    bias: NDArray[np.float64]
    base: NDArray[np.float64]
    root: NDArray[np.int32]
    node_start: NDArray[np.uint32]
    node_key: NDArray[np.uint16]
    node_rank: NDArray[np.uint16]
    node_left: NDArray[np.int32]
    node_right: NDArray[np.int32]
    leaf_value: NDArray[np.float64]
    block_start: NDArray[np.uint32]
    block_table: NDArray[np.uint32]
    block_feature: NDArray[np.uint32]
    condition_mask: NDArray[np.uint32]
    condition_want: NDArray[np.uint32]
    table: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    threshold_start: NDArray[np.uint32]
    set_feature: NDArray[np.uint32]
    set_left: NDArray[np.uint64]
    set_missing_left: NDArray[np.bool_]

    @property
    def megabytes(self) -> float:
        """What the arrays take in memory and on disk."""
        return sum(getattr(self, item.name).nbytes for item in fields(self)) / 1e6

    def thresholds_of(self, feature: int) -> NDArray[np.float64]:
        """The distinct thresholds at which the trees split a feature, in order."""
        return self.thresholds[self.threshold_start[feature] : self.threshold_start[feature + 1]]

    def margins(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The margin of each row of a (rows, features) matrix: the reached leaves added in tree order."""
        return _margins(
            np.ascontiguousarray(matrix),
            self._ranking(),
            self.bias[0],
            self.root,
            self.node_key,
            self.node_rank,
            self.node_left,
            self.node_right,
            self.leaf_value,
        )

    def explain(self, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Margins of shape (rows,), and contributions of shape (rows, features) that add up to them from `base`."""
        return _explain(
            np.ascontiguousarray(matrix),
            self._ranking(),
            self.bias[0],
            self.node_start,
            self.node_key,
            self.node_rank,
            self.block_start,
            self.block_table,
            self.block_feature,
            self.condition_mask,
            self.condition_want,
            self.table,
        )

    def _ranking(self) -> tuple[NDArray[np.generic], ...]:
        return self.thresholds, self.threshold_start, self.set_feature, self.set_left, self.set_missing_left

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
def _rank(values, ranking, ranks):  # type: ignore[no-untyped-def]
    thresholds, threshold_start, set_feature, set_left, set_missing_left = ranking
    features = len(values)
    for feature in range(features):
        value = values[feature]
        if value != value:
            ranks[2 * feature], ranks[2 * feature + 1] = RIGHT, LEFT
        else:
            first = np.uintp(threshold_start[feature])
            rest = np.uintp(threshold_start[feature + 1]) - first
            rank = np.uintp(0)
            while rest > 0:  # a binary search without branches: their outcomes are coin tosses
                half = (rest + np.uintp(1)) >> np.uintp(1)
                rank += half * np.uintp(thresholds[first + rank + half - np.uintp(1)] <= value)
                rest -= half
            ranks[2 * feature] = ranks[2 * feature + 1] = rank
    for split in range(len(set_feature)):
        value = values[set_feature[split]]
        known = value == value
        left = (set_left[split] >> np.uint64(value)) & np.uint64(1) != 0 if known else set_missing_left[split]
        ranks[2 * features + split] = LEFT if left else RIGHT


@njit(cache=True, nogil=True)
def _margins(matrix, ranking, bias, root, node_key, node_rank, left, right, leaf_value):  # type: ignore[no-untyped-def]
    margins = np.empty(len(matrix))
    ranks = np.empty(2 * matrix.shape[1] + len(ranking[2]), np.uint16)
    for row in range(len(matrix)):
        _rank(matrix[row], ranking, ranks)
        margin = bias
        for tree in range(len(root)):
            node = root[tree]
            while node >= 0:
                node = left[node] if ranks[node_key[node]] < node_rank[node] else right[node]
            margin += leaf_value[-1 - node]
        margins[row] = margin
    return margins


# It keeps the interpreter's lock: one row takes less time than it takes to get the lock back from another thread.
@njit(cache=True)
def _explain(  # type: ignore[no-untyped-def]
    matrix,
    ranking,
    bias,
    node_start,
    node_key,
    node_rank,
    block_start,
    block_table,
    block_feature,
    condition_mask,
    condition_want,
    table,
):
    # Indices are unsigned throughout: for signed ones numba tests at every access whether they count from the end.
    rows, features = matrix.shape
    margins = np.full(rows, bias)
    shares = np.zeros((rows, features + 1))  # one more for the features that a block does not use
    ranks = np.empty((min(rows, ROWS_TOGETHER), 2 * features + len(ranking[2])), np.uint16)
    for start in range(0, rows, ROWS_TOGETHER):
        together = np.uintp(min(ROWS_TOGETHER, rows - start))
        for member in range(together):
            _rank(matrix[start + member], ranking, ranks[member])
        for tree in range(len(node_start) - 1):  # a tree's part of the table is then in the cache for all of them
            for member in range(together):
                row = np.uintp(start) + member
                splits, place = np.uint32(0), np.uint32(0)
                for node in range(np.uintp(node_start[tree]), np.uintp(node_start[tree + 1])):
                    splits |= np.uint32(ranks[member, node_key[node]] < node_rank[node]) << place
                    place += np.uint32(1)
                for block in range(np.uintp(block_start[tree]), np.uintp(block_start[tree + 1])):
                    first = block * np.uintp(CONDITIONS)
                    pattern = np.uint32(0)
                    for number in range(CONDITIONS):
                        condition = first + np.uintp(number)
                        met = (splits & condition_mask[condition]) == condition_want[condition]
                        pattern |= np.uint32(met) << np.uint32(number)
                    line = np.uintp(block_table[block] + pattern)
                    margins[row] += table[line, 0]  # nothing, but for the block of the reached leaf
                    for number in range(CONDITIONS):
                        shares[row, block_feature[first + np.uintp(number)]] += table[line, np.uintp(number + 1)]
    return margins, np.ascontiguousarray(shares[:, :features])
