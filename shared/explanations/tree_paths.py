"""Fitted tree ensembles as arrays of leaves, and the conditions that a row must meet to reach each.

The conditions of a leaf are grouped by player, the feature that they test: a player meets a leaf when its values pass
every test that the path makes of it. Which players of a row meet a leaf is one bit mask, and all of a model's trees
answer for a row in a few array operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.encoding.blocks import Estimator, Matrix, Unsupported
from shared.scoring.trees import TreeInput, import_trees

Masks = NDArray[Any]  # unsigned integers, as narrow as the longest path allows

MAX_PLAYERS = 64  # of one path: as many as a mask has bits
MAX_LEAVES = 100_000  # of all trees; beyond, reading and holding them takes minutes and gigabytes
CHUNK_CELLS = 4_000_000  # tests that are held at a time: 32 MB
LESS, LESS_OR_EQUAL = 2, 3  # treelite's Operator


@dataclass(frozen=True, slots=True)
class TreePaths:
    """The L leaves of an ensemble, for K outputs; leaf masks have a bit for each of at most D players of a path."""

    input: TreeInput
    column: NDArray[np.intp]  # (N,): the encoded column that a node tests
    threshold: NDArray[Any]  # (N,): in the type in which it is compared
    or_equal: NDArray[np.bool_]  # (N,): the test is <= and not <
    default_left: NDArray[np.bool_]  # (N,): where a missing value goes
    categories: dict[int, tuple[NDArray[np.int64], bool]]  # node -> (sorted categories, whether they go left)
    test_node: NDArray[np.intp]  # (T,): the tests of all leaves, leaf by leaf
    test_left: NDArray[np.bool_]  # (T,): the side on which the leaf lies
    test_bit: Masks  # (T,): the bit of the player that the node tests
    first_test: NDArray[np.intp]  # (L,)
    full: Masks  # (L,): the mask of a row that reaches the leaf
    player: NDArray[np.intp]  # (L, D): the feature of each bit; -1 beyond the path's own
    cover: Matrix  # (L, D): the share of training rows that pass a player's tests, each at its node; 1 beyond
    value: Matrix  # (L, K): what the leaf adds to each output
    constant: Matrix  # (K,): what no test decides

    def masks(self, features: Matrix) -> Masks:
        """Return for n encoded rows which players meet each leaf, shape (n, L).

        `features` must have passed `input.prepare`.
        """
        out = np.empty((len(features), len(self.full)), dtype=self.full.dtype)
        step = max(1, CHUNK_CELLS // max(len(self.test_node), 1))
        for low in range(0, len(features), step):
            part = features[low : low + step]
            failed = self._goes_left(part)[:, self.test_node] != self.test_left
            bits = np.where(failed, self.test_bit, self.test_bit.dtype.type(0))
            out[low : low + step] = self.full & ~np.bitwise_or.reduceat(bits, self.first_test, axis=1)
        return out

    def outputs(self, masks: Masks) -> Matrix:
        """Return the ensemble's own outputs for n rows, shape (n, K), before any link."""
        result: Matrix = (masks == self.full) @ self.value + self.constant
        return result

    def _goes_left(self, features: Matrix) -> NDArray[np.bool_]:
        values = features[:, self.column]
        left = np.where(self.or_equal, values <= self.threshold, values < self.threshold)
        for node, (categories, listed_left) in self.categories.items():
            column = values[:, node]
            is_category = np.isfinite(column) & (column >= 0)
            listed = is_category & np.isin(np.where(is_category, column, -1).astype(np.int64), categories)
            left[:, node] = listed == listed_left
        return np.where(np.isnan(values), self.default_left, left)


def read_trees(estimator: Estimator, players: Sequence[int], *, sparse: bool) -> TreePaths:
    """Return the paths of a fitted ensemble; `players` is the feature of each encoded column.

    `sparse` tells that the pipeline hands over a sparse matrix, in which XGBoost takes a zero for missing. Raises
    Unsupported for anything but ensembles of trees, and for paths that test more than 64 features.
    """
    model = import_trees(estimator)
    header = model.get_header_accessor()
    outputs = int(header.get_field("num_class")[0])
    if int(header.get_field("num_target")[0]) != 1:
        raise Unsupported("the trees predict several targets")
    reader = _Reader(players, outputs, header.get_field("class_id"))
    for place in range(model.num_tree):
        reader.read(model.get_tree_accessor(place), place)
        if len(reader.leaves) > MAX_LEAVES:
            raise Unsupported(f"the trees have more than {MAX_LEAVES:,} leaves")
    averages = bool(header.get_field("average_tree_output")[0])
    alpha = float(header.get_field("sigmoid_alpha")[0]) if header.get_field("postprocessor") == "sigmoid" else 1.0
    scale = alpha / model.num_tree if averages else alpha
    base = np.asarray(header.get_field("base_scores"), dtype=np.float64) * alpha
    tree_input = TreeInput(estimator, model, sparse=sparse)
    return reader.paths(tree_input, scale, base)


class _Reader:
    """Collects nodes, tests and leaves, tree by tree."""

    def __init__(self, players: Sequence[int], outputs: int, class_ids: NDArray[np.int32]) -> None:
        self.players = players
        self.outputs = outputs
        self.class_ids = class_ids
        self.column: list[int] = []
        self.threshold: list[float] = []
        self.operator: list[int] = []
        self.default_left: list[bool] = []
        self.categories: dict[int, tuple[NDArray[np.int64], bool]] = {}
        self.leaves: list[tuple[list[tuple[int, bool]], list[float], Matrix]] = []  # tests, shares, value
        self.constant = np.zeros(outputs)

    def read(self, tree: Any, place: int) -> None:  # noqa: ANN401 - treelite has no types
        """Add the nodes and leaves of one tree."""
        field = tree.get_field
        left, right, kind = field("cleft").tolist(), field("cright").tolist(), field("node_type").tolist()
        column, threshold = field("split_index").tolist(), field("threshold").tolist()
        operator, default = field("cmp").tolist(), field("default_left").tolist()
        cover = field("data_count") if len(field("data_count")) else field("sum_hess")
        weights: list[float] | None = cover.astype(np.float64).tolist() if len(cover) else None
        value, vector = field("leaf_value"), field("leaf_vector")
        begin, end = field("leaf_vector_begin").tolist(), field("leaf_vector_end").tolist()
        listed, first, last = (field(f"category_list{suffix}") for suffix in ("", "_begin", "_end"))
        lists_right = field("category_list_right_child")
        number: dict[int, int] = {}
        waiting: list[tuple[int, list[tuple[int, bool]], list[float]]] = [(0, [], [])]
        while waiting:
            node, tests, shares = waiting.pop()
            if left[node] < 0:
                self._add_leaf(tests, shares, value[node], vector[begin[node] : end[node]], place)
                continue
            number[node] = len(self.column)
            if kind[node] == 2:  # a test of categories
                members = np.sort(listed[int(first[node]) : int(last[node])].astype(np.int64))
                self.categories[number[node]] = (members, not lists_right[node])
            elif operator[node] not in (LESS, LESS_OR_EQUAL):
                raise Unsupported("the trees compare otherwise than by < and <=")
            self.column.append(column[node])
            self.threshold.append(threshold[node])
            self.operator.append(operator[node])
            self.default_left.append(bool(default[node]))
            for child, is_left in ((left[node], True), (right[node], False)):
                share = np.nan if weights is None or weights[node] <= 0 else weights[child] / weights[node]
                waiting.append((child, [*tests, (number[node], is_left)], [*shares, share]))

    def _add_leaf(
        self, tests: list[tuple[int, bool]], shares: list[float], one: float, vector: Matrix, place: int
    ) -> None:
        value = np.zeros(self.outputs)
        if len(vector) == self.outputs:
            value[:] = vector
        elif len(vector):
            raise Unsupported("a leaf has another number of values than the model has classes")
        else:
            value[max(int(self.class_ids[place]), 0)] = one
        if tests:
            self.leaves.append((tests, shares, value))
        else:
            self.constant += value

    def paths(self, tree_input: TreeInput, scale: float, base: Matrix) -> TreePaths:
        """Return everything that was read as arrays."""
        if not self.leaves:
            raise Unsupported("no tree tests anything")
        by_leaf = [self._players_of(tests) for tests, _, _ in self.leaves]
        width = max(map(len, by_leaf))
        if width > MAX_PLAYERS:
            raise Unsupported(f"one path tests {width} features, and {MAX_PLAYERS} at most are explained")
        count = len(self.leaves)
        player = np.full((count, width), -1, dtype=np.intp)
        cover = np.ones((count, width))
        bits, nodes, sides, lengths = [], [], [], []
        for leaf, ((tests, shares, _), own) in enumerate(zip(self.leaves, by_leaf, strict=True)):
            player[leaf, : len(own)] = list(own)
            lengths.append(len(tests))
            for (node, is_left), share in zip(tests, shares, strict=True):
                slot = own[self.players[self.column[node]]]
                cover[leaf, slot] *= share
                bits.append(1 << slot)
                nodes.append(node)
                sides.append(is_left)
        kind = next(f"uint{size}" for size in (8, 16, 32, 64) if width <= size)
        full = np.array([(1 << len(own)) - 1 for own in by_leaf], dtype=kind)
        return TreePaths(
            tree_input,
            np.array(self.column, dtype=np.intp),
            np.array(self.threshold, dtype=tree_input.dtype),
            np.array(self.operator) == LESS_OR_EQUAL,
            np.array(self.default_left, dtype=bool),
            self.categories,
            np.array(nodes, dtype=np.intp),
            np.array(sides, dtype=bool),
            np.array(bits, dtype=kind),
            np.concatenate([[0], np.cumsum(lengths[:-1])]).astype(np.intp),
            full,
            player,
            cover,
            np.array([value for _, _, value in self.leaves]) * scale,
            self.constant * scale + base,
        )

    def _players_of(self, tests: list[tuple[int, bool]]) -> dict[int, int]:
        """Return the players of a path, each with its bit."""
        slots: dict[int, int] = {}
        for node, _ in tests:
            slots.setdefault(self.players[self.column[node]], len(slots))
        return slots
