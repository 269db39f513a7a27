"""Shapley values of tree ensembles, feature by feature, exact in float64.

Interventional (Janzing, Minorics and Blöbaum 2020; Lundberg et al. 2020): a feature outside a coalition has the value
that it has in a row of the reference sample, and the game is the mean over that sample. For one leaf and one reference
row the game has a closed form: the leaf counts if all players of A, which the explained row alone passes, are in the
coalition, and none of B, which the reference row alone passes. A player of A then gets (|A|-1)! |B|! / (|A|+|B|)! of
the leaf's value, and one of B loses |A|! (|B|-1)! / (|A|+|B|)!.

Path-dependent (Lundberg, Erion and Lee 2018): a feature outside a coalition follows both branches, weighed by the
training rows that did. Shapley values are the integral of Owen's multilinear extension (1972) along its diagonal; here
that is a polynomial, which Gauss-Legendre quadrature integrates exactly.
"""

from dataclasses import dataclass
from functools import cache
from math import factorial

import numpy as np
from numpy.typing import NDArray

from shared.encoding.blocks import Matrix, Unsupported
from shared.explanations.tree_paths import Masks, TreePaths

PAIRS_AT_ONCE = 300_000  # what fits into a processor's cache
FEW_ROWS = 64  # more are summed leaf by leaf, and not row by row
MAX_CELLS = 4_000_000  # of a table of all masks: 32 MB
MAX_PAIRS = 30_000_000  # from which it is made, in a second or two
CELLS_AT_ONCE = 1_000_000  # that are looked up


@dataclass(frozen=True, slots=True)
class Distinct:
    """The distinct masks of each leaf among n rows, leaf by leaf."""

    leaf: NDArray[np.intp]  # (E,)
    mask: Masks  # (E,)
    count: NDArray[np.intp]  # (E,): the rows that have it
    place: NDArray[np.intp]  # (L, n): the entry of each row in each leaf


@dataclass(frozen=True, slots=True)
class ReferenceMasks:
    """How the rows of a reference sample lie in the leaves, and what the model predicts of them on average."""

    leaf: NDArray[np.intp]  # (E,)
    mask: Masks  # (E,)
    weight: Matrix  # (E,): the share of reference rows with this mask
    first: NDArray[np.intp]  # (L + 1,): where the entries of each leaf begin
    base: Matrix  # (K,): the mean of the outputs


def reference_masks(paths: TreePaths, features: Matrix) -> ReferenceMasks:
    """Return the masks of the prepared reference rows, shape (r, width)."""
    masks = paths.masks(features)
    distinct = _distinct(masks)
    first = np.searchsorted(distinct.leaf, np.arange(len(paths.full) + 1))
    weight = distinct.count / len(features)
    return ReferenceMasks(distinct.leaf, distinct.mask, weight, first, paths.outputs(masks).mean(axis=0))


class LeafTables:
    """What each mask that a row may have in a leaf gives to the leaf's players: explaining is looking it up.

    As Fast TreeSHAP v2 (Yang 2021) does for path-dependent values.
    """

    def __init__(self, paths: TreePaths, reference: ReferenceMasks, count: int) -> None:
        from scipy.sparse import csr_matrix

        self.paths = paths
        is_player = paths.player >= 0
        self.width = is_player.sum(axis=1)
        masks = 1 << self.width
        leaf = np.repeat(np.arange(len(masks)), masks)
        mask = (np.arange(len(leaf)) - np.repeat(np.cumsum(masks) - masks, masks)).astype(paths.full.dtype)
        amounts = _entry_amounts(paths, reference, leaf, mask, np.ones(len(masks)))
        self.amounts = amounts[is_player[leaf]]  # leaf by leaf, mask by mask, player by player
        cells = masks * self.width
        self.first = np.cumsum(cells) - cells  # (L,): where the cells of each leaf begin
        self.leaf, self.slot = np.nonzero(is_player)  # (C,): each player of each leaf
        ones = np.ones(len(self.leaf))
        self.sums = csr_matrix((ones, (paths.player[is_player], np.arange(len(ones)))), shape=(count, len(ones)))

    @staticmethod
    def fit(paths: TreePaths, reference: ReferenceMasks) -> bool:
        """Return whether the tables of these paths are small enough, and fast to make."""
        width = (paths.player >= 0).sum(axis=1)
        masks = np.exp2(width)
        pairs = masks @ np.diff(reference.first)
        return bool(masks @ width <= MAX_CELLS and pairs <= MAX_PAIRS)

    def contributions(self, masks: Masks, output: int) -> Matrix:
        """Return the contributions of each feature to one output of n rows with these leaf masks, shape (n, count)."""
        result = np.empty((len(masks), self.sums.shape[0]))
        value = self.paths.value[self.leaf, output, None]
        step = max(1, CELLS_AT_ONCE // len(self.leaf))
        for low in range(0, len(masks), step):
            cell = masks[low : low + step].T.astype(np.intp, order="C")
            cell *= self.width[:, None]
            cell += self.first[:, None]
            cell = cell[self.leaf]
            cell += self.slot[:, None]
            amounts = self.amounts[cell]
            amounts *= value
            result[low : low + step] = (self.sums @ amounts).T
        return result


def interventional(paths: TreePaths, reference: ReferenceMasks, masks: Masks, output: int, count: int) -> Matrix:
    """Return the contributions of `count` features to one output of n rows with these leaf masks, shape (n, count)."""
    rows = _distinct(masks)
    amounts = _entry_amounts(paths, reference, rows.leaf, rows.mask, paths.value[:, output])
    return _sum_by_feature(paths, amounts, rows.place, count)


def _entry_amounts(
    paths: TreePaths, reference: ReferenceMasks, leaf: NDArray[np.intp], mask: Masks, value: Matrix
) -> Matrix:
    """Return what entries, each a leaf and a mask in it, give to the leaf's players, (E, D); `value` is the leaves'."""
    width = paths.player.shape[1]
    amounts = np.zeros(len(leaf) * width)
    pairs = reference.first[leaf + 1] - reference.first[leaf]
    ends = np.cumsum(pairs)
    low = 0
    while low < len(leaf):  # masks of the rows with those of the reference rows, some millions of pairs at a time
        before = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, before + PAIRS_AT_ONCE, side="right")))
        leaves, sizes = leaf[low:high], pairs[low:high]
        entry = np.repeat(np.arange(high - low), sizes)
        other = np.arange(sizes.sum()) + np.repeat(reference.first[leaves] - (ends[low:high] - sizes - before), sizes)
        amounts[low * width : high * width] = _amounts(paths, reference, leaves, mask[low:high], entry, other, value)
        low = high
    return amounts.reshape(-1, width)


def _sum_by_feature(paths: TreePaths, amounts: Matrix, place: NDArray[np.intp], count: int) -> Matrix:
    """Return the sums of what every leaf gives to its players, (n, count), from the amounts of entries, (E, D)."""
    leaves, n = place.shape
    if n < FEW_ROWS:
        player = paths.player.reshape(-1) + 1  # 0: no player
        sums = [
            np.bincount(player, weights=amounts[place[:, row]].reshape(-1), minlength=count + 1)[1:] for row in range(n)
        ]
        return np.array(sums, dtype=np.float64).reshape(n, count)
    result = np.zeros((count, n))
    widths = (paths.player >= 0).sum(axis=1).tolist()
    for leaf in range(leaves):
        width = widths[leaf]
        result[paths.player[leaf, :width]] += amounts[place[leaf], :width].T
    return result.T


def _amounts(
    paths: TreePaths,
    reference: ReferenceMasks,
    leaf: NDArray[np.intp],
    mask: Masks,
    entry: NDArray[np.intp],
    other: NDArray[np.intp],
    value: Matrix,
) -> Matrix:
    """Return what pairs of these e entries with some of the reference give to each player of the entries, (e * D,)."""
    width = paths.player.shape[1]
    own, theirs = mask[entry], reference.mask[other]
    both = np.flatnonzero((own | theirs) == paths.full[leaf[entry]])
    entry, other, own, theirs = entry[both], other[both], own[both], theirs[both]
    gained, lost = own & ~theirs, theirs & ~own
    share = reference.weight[other] * value[leaf[entry]]
    table = _shares(width)
    sizes = np.bitwise_count(gained), np.bitwise_count(lost)
    cells, parts = [np.empty(0, dtype=np.intp)], [np.empty(0)]
    one = own.dtype.type(1)
    for masks, amount in ((gained, share * table[sizes[0], sizes[1]]), (lost, -share * table[sizes[1], sizes[0]])):
        bits, start, part = masks, entry * width, amount
        hits = np.flatnonzero(bits)
        while len(hits):  # the lowest bit of each, and then the next
            bits, start, part = bits[hits], start[hits], part[hits]
            rest = bits & (bits - one)
            cells.append(start + np.bitwise_count((bits ^ rest) - one))
            parts.append(part)
            bits, hits = rest, np.flatnonzero(rest)
    total = np.bincount(np.concatenate(cells), weights=np.concatenate(parts), minlength=len(leaf) * width)
    return total.astype(np.float64, copy=False)


def _distinct(masks: Masks) -> Distinct:
    """Return the distinct masks of n rows in each leaf; `masks` has shape (n, L)."""
    by_leaf = np.ascontiguousarray(masks.T)
    order = np.argsort(by_leaf, axis=1, kind="stable")
    in_order = np.take_along_axis(by_leaf, order, axis=1)
    is_new = np.ones(by_leaf.shape, dtype=bool)
    np.not_equal(in_order[:, 1:], in_order[:, :-1], out=is_new[:, 1:])
    place = np.empty(by_leaf.shape, dtype=np.intp)
    np.put_along_axis(place, order, (np.cumsum(is_new) - 1).reshape(is_new.shape), axis=1)
    starts = np.flatnonzero(is_new)  # each leaf begins with a new one, so that no count spans two
    counts = np.diff(starts, append=by_leaf.size)
    return Distinct(starts // by_leaf.shape[1], in_order.reshape(-1)[starts], counts, place)


def path_dependent(paths: TreePaths, mask: Masks, output: int, count: int) -> Matrix:
    """Return the contribution of each of `count` features to one output of one row, whose leaf masks are (L,)."""
    width = paths.player.shape[1]
    slots = np.arange(width, dtype=mask.dtype)
    passes = ((mask[:, None] >> slots) & mask.dtype.type(1)).astype(np.float64)
    passes[paths.player < 0] = 1.0
    cover = paths.cover
    points, weights = np.polynomial.legendre.leggauss((width + 1) // 2)
    total = np.zeros(passes.shape)
    for point, weight in zip((points + 1.0) / 2.0, weights / 2.0, strict=True):
        factor = point * passes + (1.0 - point) * cover  # above 0: cover is
        total += weight * np.prod(factor, axis=1, keepdims=True) / factor
    amount = paths.value[:, output, None] * (passes - cover) * total
    is_real = paths.player >= 0
    total_of = np.bincount(paths.player[is_real], weights=amount[is_real], minlength=count)
    return total_of.astype(np.float64, copy=False)


def path_dependent_base(paths: TreePaths) -> Matrix:
    """Return the outputs of no coalition, shape (K,); Unsupported where the trees did not keep their counts."""
    if not (paths.cover > 0).all():
        raise Unsupported("the trees do not tell how many rows took each branch")
    base: Matrix = np.prod(paths.cover, axis=1) @ paths.value + paths.constant
    return base


@cache
def _shares(most: int) -> Matrix:
    """Return (a-1)! b! / (a+b)! for a and b up to `most`; 0 where a is 0."""
    table = np.zeros((most + 1, most + 1))
    for a in range(1, most + 1):
        for b in range(most + 1):
            table[a, b] = factorial(a - 1) * factorial(b) / factorial(a + b)
    return table
