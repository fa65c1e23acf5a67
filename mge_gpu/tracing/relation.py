"""Relations: one-to-many index maps between the coordinates of tensors and the nodes of a partition.

A route is made of them. Entry i of a relation lists the offsets that coordinate i stands for: one
for a permutation, none for a zero that padding put there, several for a pooling window. The same
offset may be listed twice (a pool of an overlapping pool): its multiplicity is the route's value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np


@dataclass(frozen=True)
class Relation:
    """A one-to-many map in compressed rows: row i holds ``idx[ptr[i]:ptr[i + 1]]``."""

    ptr: np.ndarray  # (n + 1,) int64
    idx: np.ndarray  # (members,) int64

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @property
    def counts(self) -> np.ndarray:
        """Members of each row, shape (n,), int64."""
        return np.diff(self.ptr)

    @property
    def is_function(self) -> bool:
        """Whether each row has exactly one member."""
        return len(self.idx) == len(self) and bool((self.counts == 1).all())

    @property
    def is_permutation(self) -> bool:
        """Whether the rows list each of 0 to n - 1 once."""
        n = len(self)
        return (
            len(self.idx) == n and self.is_function and bool((np.bincount(self.idx, minlength=n) == 1).all())
        )

    @property
    def is_zero(self) -> bool:
        """Whether this is the one-row relation {0}, which changes no offset."""
        return len(self) == 1 and len(self.idx) == 1 and self.idx[0] == 0

    def rows(self) -> np.ndarray:
        """The row of each member, shape (members,), int64."""
        return np.repeat(np.arange(len(self)), self.counts)

    def take(self, index: np.ndarray) -> "Relation":
        """Rows at ``index``; -1 stands for an empty row.

        >>> arange(3, 10).take(np.array([2, -1, 0])).idx.tolist()
        [20, 0]
        """
        return compose(function(index), self)


def arange(n: int, stride: int = 1) -> Relation:
    """The relation i -> i * stride of n rows."""
    return Relation(np.arange(n + 1), np.arange(n, dtype=np.int64) * stride)


def function(values: np.ndarray) -> Relation:
    """The relation i -> values[i]; rows where the value is negative are empty."""
    present = values >= 0
    ptr = np.zeros(len(values) + 1, np.int64)
    np.cumsum(present, out=ptr[1:])
    return Relation(ptr, values[present].astype(np.int64))


def from_lists(rows: Sequence[Sequence[int] | range]) -> Relation:
    """A relation from one list of members a row."""
    ptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(r) for r in rows], out=ptr[1:])
    idx = np.fromiter((x for r in rows for x in r), np.int64, int(ptr[-1]))
    return Relation(ptr, idx)


def _gather(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenate the ranges [starts[i], starts[i] + counts[i])."""
    total = int(counts.sum())
    ends = np.cumsum(counts)
    return np.arange(total) + np.repeat(starts - (ends - counts), counts)


def compose(outer: Relation, inner: Relation) -> Relation:
    """Follow ``outer``, then ``inner``: row i is the concatenation of inner's rows at outer's members.

    >>> compose(from_lists([[0, 1], [1]]), from_lists([[5], [6, 7]])).idx.tolist()
    [5, 6, 7, 6, 7]
    """
    if inner.is_function:
        return Relation(outer.ptr, inner.idx[outer.idx])
    counts = inner.counts[outer.idx]
    ptr = np.concatenate([[0], np.cumsum(counts)])[outer.ptr]
    return Relation(ptr, inner.idx[_gather(inner.ptr[outer.idx], counts)])


def outer_sum(relations: Sequence[Relation]) -> Relation:
    """The joint relation over the product of rows (C order); offsets add up.

    >>> outer_sum([arange(2, 10), arange(2)]).idx.tolist()
    [0, 1, 10, 11]
    """
    joint = Relation(np.array([0, 1]), np.zeros(1, np.int64))
    for r in relations:
        if joint.is_function and r.is_function:
            joint = Relation(np.arange(len(joint) * len(r) + 1), (joint.idx[:, None] + r.idx[None]).ravel())
            continue
        counts = np.outer(joint.counts, r.counts).ravel()
        a = np.repeat(np.arange(len(joint)), len(r))
        b = np.tile(np.arange(len(r)), len(joint))
        row = np.repeat(np.arange(len(counts)), counts)
        within = _gather(np.zeros(len(counts), np.int64), counts)
        width = r.counts[b][row]
        idx = joint.idx[joint.ptr[a][row] + within // width] + r.idx[r.ptr[b][row] + within % width]
        joint = Relation(np.concatenate([[0], np.cumsum(counts)]), idx)
    return joint


def distinct(relation: Relation) -> Relation:
    """The same relation with each member of a row listed once, in ascending order.

    >>> distinct(from_lists([[4, 2, 4], [], [1, 1]])).idx.tolist()
    [2, 4, 1]
    """
    if len(relation.idx) == len(relation) and relation.is_function:
        return relation
    row = relation.rows()
    if not len(row):
        return relation
    low = int(relation.idx.min())
    width = int(relation.idx.max()) - low + 1
    key = np.unique(row * width + (relation.idx - low))
    ptr = np.searchsorted(key, np.arange(len(relation) + 1) * width).astype(np.int64)
    return Relation(ptr, key % width + low)


def concatenate(relations: Sequence[Relation]) -> Relation:
    """Row i lists the members of row i of each of the relations, which have equally many rows.

    >>> concatenate([from_lists([[1], []]), from_lists([[2, 3], [4]])]).idx.tolist()
    [1, 2, 3, 4]
    """
    row = np.concatenate([r.rows() for r in relations])
    order = np.argsort(row, kind="stable")
    counts = np.sum([r.counts for r in relations], axis=0)
    return Relation(
        np.concatenate([[0], np.cumsum(counts)]), np.concatenate([r.idx for r in relations])[order]
    )


def reorder(relation: Relation, sizes: Sequence[int], order: Sequence[int]) -> Relation:
    """Re-index a joint relation over ``sizes`` to the dims in ``order`` (a transpose of its rows)."""
    if list(order) == sorted(order):
        return relation
    index = np.arange(prod(sizes)).reshape(sizes).transpose(order).ravel()
    return relation.take(index)


def split(relation: Relation, sizes: Sequence[int]) -> list[Relation] | None:
    """Write a joint relation over ``sizes`` as one relation a dim whose offsets add up, or None.

    Possible when the rows differ from the first by a shift that is a sum of one term a dim.
    """
    counts = relation.counts
    if not len(counts) or not counts[0] or (counts != counts[0]).any():
        return None
    members = relation.idx.reshape(*sizes, int(counts[0]))
    first = members[(0,) * len(sizes)]
    shifts, total = [], np.zeros(tuple(sizes), np.int64)
    for axis, size in enumerate(sizes):
        line = tuple(slice(None) if a == axis else 0 for a in range(len(sizes)))
        shift = members[line + (0,)] - first[0]
        shifts.append(shift)
        total = total + shift.reshape([size if a == axis else 1 for a in range(len(sizes))])
    if not (members == total[..., None] + first).all():
        return None
    last = shifts[-1][:, None] + first
    parts = [Relation(np.arange(len(s) + 1), s) for s in shifts[:-1]]
    return [*parts, Relation(np.arange(len(last) + 1) * last.shape[1], last.ravel())]


def windows(n: int, size: int, stride: int, padding: int, dilation: int, count: int) -> Relation:
    """Row y lists the coordinates of a pooling window: y * stride + t * dilation - padding, in range."""
    at = np.arange(count)[:, None] * stride + np.arange(size)[None] * dilation - padding
    inside = (at >= 0) & (at < n)
    return Relation(np.concatenate([[0], np.cumsum(inside.sum(1))]), at[inside])


def adaptive_windows(n: int, count: int) -> Relation:
    """Row y lists floor(y n / count) .. ceil((y + 1) n / count) - 1, as adaptive pooling does."""
    return from_lists([range(y * n // count, -(-(y + 1) * n // count)) for y in range(count)])
