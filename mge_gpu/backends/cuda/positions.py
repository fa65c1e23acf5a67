"""Which positions of the two sides of a block each tap links, as tables that kernels read."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mge_gpu.backends.adjacency import Block

PADDING = 8
"""Entries of a table for each pair of positions, at most: a block that would need more gets no table."""

SMALL = 1 << 16
"""Entries that a table may have in any case."""

MOST_PAIRS = 1 << 23
"""Pairs of positions of a block from which on it gets no table: listing them takes seconds."""

KEPT = {1 << 17: 128, 1 << 21: 8}
"""Pairs up to which what is known of a block is kept for others like it, and for how many (200 MB each)."""


class Taps(NamedTuple):
    """Rows of a table: one a tap, or several where a tap links a position to several of the other side."""

    first: np.ndarray  # (taps,) int64
    depth: np.ndarray  # (taps,) int64: rows of each, at least 1

    @property
    def rows(self) -> int:
        """Rows in all."""
        return int(self.depth.sum())

    @property
    def single(self) -> bool:
        """Whether each tap has one."""
        return bool((self.depth == 1).all())


class Layout(NamedTuple):
    """A partition in which channels run fastest. Neighbouring threads want positions next to each other."""

    channels: int
    positions: int

    def turned(self, node: np.ndarray) -> np.ndarray:
        """Numbers of nodes within the partition once positions run fastest."""
        turned: np.ndarray = node % self.channels * self.positions + node // self.channels
        return turned


def layouts_of(blocks: Sequence[Block]) -> dict[int, Layout]:
    """Partitions in which channels run fastest, by offset, as far as some blocks tell."""
    found = {
        b.target_offset: Layout(b.target_position_stride, b.target_positions)
        for b in blocks
        if b.target_channel_stride == 1 and min(b.target_position_stride, b.target_positions) > 1
    }
    strides = [(b.target_offset, b.target_channel_stride) for b in blocks]
    strides += [(b.source_offset, b.source_channel_stride) for b in blocks]

    def agree(offset: int, layout: Layout) -> bool:  # what all blocks say of these nodes
        end = offset + layout.channels * layout.positions
        return all(at == offset and stride <= 1 for at, stride in strides if offset <= at < end)

    return {offset: layout for offset, layout in found.items() if agree(offset, layout)}


class Geometry(NamedTuple):
    """The pairs of a block from the side that is written (far) to the one that is read (near), in nodes."""

    taps: Taps
    row: np.ndarray  # (pairs,) int32: of the table
    far: np.ndarray  # (pairs,) int32
    near: np.ndarray  # (pairs,) int32
    step: int  # divides all of far; 0 where they are 0
    last: int  # the largest of far

    @property
    def positions(self) -> int:
        """Positions of the far side, as far as the block reaches."""
        return self.last // max(self.step, 1) + 1

    def fits(self, positions: int) -> bool:
        """Whether a table for so many positions is worth its memory."""
        return self.taps.rows * positions <= max(SMALL, PADDING * len(self.row))

    def table(self, step: int, positions: int) -> np.ndarray:
        """(rows * positions,) int32: near node for each position of the far side, -1 where there is none."""
        out = np.full(self.taps.rows * positions, -1, np.int32)
        out[self.row * positions + self.far // step] = self.near
        return out


def says_itself(table: np.ndarray, positions: int) -> bool:
    """Whether a table has one row, of as many positions, that says of each the position itself.

    >>> [says_itself(np.array(t), 2) for t in ([0, 1], [1, 0], [0, 1, 2, 3])]
    [True, False, False]
    """
    return np.array_equal(table, np.arange(positions))


def geometry(
    block: Block, ahead: bool, far: Layout | None = None, near: Layout | None = None
) -> Geometry | None:
    """The pairs of a block, read from its sources (``ahead``) or its targets; None where they are too many.

    ``far`` and ``near``: the layout of a side in which channels run fastest. What is small is computed once
    for all blocks that are alike, as those of many masks are.
    """
    pairs = int(block.pair_count.sum())
    if pairs > MOST_PAIRS:
        return None
    runs = np.ascontiguousarray(block.run_ptr, np.int64), np.ascontiguousarray(block.runs, np.int64)
    for most, known in _KNOWN.items():
        if pairs <= most:
            return known(*(a.tobytes() for a in runs), ahead, far, near)
    return _geometry(*runs, ahead, far, near)


def _from_bytes(run_ptr: bytes, runs: bytes, *rest: Any) -> Geometry:
    return _geometry(np.frombuffer(run_ptr, np.int64), np.frombuffer(runs, np.int64).reshape(-1, 5), *rest)


_KNOWN = {most: lru_cache(maxsize=blocks)(_from_bytes) for most, blocks in KEPT.items()}


def _geometry(
    run_ptr: np.ndarray, runs: np.ndarray, ahead: bool, written: Layout | None, read: Layout | None
) -> Geometry:
    length, taps = runs[:, 2], len(run_ptr) - 1
    at = np.repeat(np.arange(len(runs)), length)
    within = np.arange(len(at)) - np.repeat(np.cumsum(length) - length, length)
    target, source = (runs[at, k] + within * runs[at, k + 3] for k in (0, 1))
    far, near = (target, source) if ahead else (source, target)
    far = far if written is None else written.turned(far)
    near = near if read is None else read.turned(near)
    step, last = (int(np.gcd.reduce(far)), int(far.max())) if len(far) else (0, 0)
    tap = np.repeat(np.repeat(np.arange(taps), np.diff(run_ptr)), length)
    rank = _ranks(tap * (last + 1) + far, taps * (last + 1))
    count = np.ones(taps, np.int64)
    np.maximum.at(count, tap, rank + 1)
    first = np.cumsum(count) - count
    row, far, near = (a.astype(np.int32) for a in (first[tap] + rank, far, near))
    return Geometry(Taps(first, count), row, far, near, step, last)


def _ranks(key: np.ndarray, keys: int) -> np.ndarray:
    """Number of each entry among those of its key, in order."""
    rank = np.zeros(len(key), np.int64)
    if keys <= max(SMALL, PADDING * len(key)):
        there = np.zeros(keys, np.bool_)
        there[key] = True
        if np.count_nonzero(there) == len(key):  # no two are equal: no need to sort
            return rank
    order = np.argsort(key, kind="stable")
    new = np.r_[True, np.diff(key[order]) != 0][: len(key)]
    rank[order] = np.arange(len(key)) - np.maximum.accumulate(np.where(new, np.arange(len(key)), 0))
    return rank
