"""Edges written down block by block on the device."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda.resident import resident_block
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.backends.cuda.shortage import Outcome, attempt
from mge_gpu.errors import NotEnoughMemoryError

Edges = tuple[Any, Any, Any]

MERGED = 1 << 26
"""Pairs that are merged at a time where several nonzeros may lead to one edge (about 60 bytes each)."""

FEWEST = 1 << 16
"""Pairs below which a piece is not cut where memory is short."""


class _Filler:
    """The pairs of a block, in the order in which they are written down."""

    def __init__(self, runtime: Runtime, block: Block) -> None:
        self.runtime = runtime
        if block.overlaps:  # what may meet comes together: by target channel and source channel
            order = np.lexsort((block.source_channel, block.target_channel))
            columns = ("target_channel", "source_channel", "tap", "weight")
            fields: dict[str, Any] = {name: getattr(block, name)[order] for name in columns}
            block = block._replace(**fields)
        self.block = block
        self.on_device = resident_block(runtime, block)
        self.start = np.concatenate([[0], np.cumsum(block.pair_count[block.tap])]).astype(np.int64)
        """Number of pairs before each nonzero, and in all."""
        self._starts = runtime.xp.asarray(self.start)

    def fill(self, first: int, last: int, edges: Edges) -> None:
        """Write the pairs of nonzeros ``first`` to ``last`` into three arrays of their number."""
        numbers = np.int64(first), np.int64(last - first), self._starts, np.int64(self.start[first])
        self.runtime.launch("coo", "fill", last - first, self.on_device.table, *numbers, *edges)

    def pieces(self, limit: int) -> Iterator[Edges]:
        """Pieces of at most ``limit`` pairs, fewer where memory is short, or of the nonzeros of one edge."""
        nonzeros = len(self.block.tap)
        may_cut = np.arange(nonzeros + 1)
        if self.block.overlaps:
            cell = np.diff(self.block.target_channel) | np.diff(self.block.source_channel)
            may_cut = np.concatenate([[0], np.flatnonzero(cell) + 1, [nonzeros]])
        at = 0
        while at < len(may_cut) - 1:
            first = int(may_cut[at])
            most = np.searchsorted(self.start[may_cut], self.start[first] + limit, side="right")
            after = max(at + 1, int(most) - 1)
            last = int(may_cut[after])
            size = int(self.start[last] - self.start[first])
            edges = attempt(self.runtime, partial(self._made, first, last))
            if edges is Outcome.SHORT:
                if limit <= FEWEST or after == at + 1:
                    raise NotEnoughMemoryError(f"a piece of {size:,} edges does not fit the GPU's memory")
                limit = max(FEWEST, size // 2)
                continue
            at = after
            yield edges

    def _made(self, first: int, last: int) -> Edges:
        edges = _empty(self.runtime, int(self.start[last] - self.start[first]))
        self.fill(first, last, edges)
        return _merged(self.runtime.xp, *edges) if self.block.overlaps else edges


def _empty(runtime: Runtime, size: int) -> Edges:
    source, target, weight = (runtime.xp.empty(size, t) for t in (np.int64, np.int64, np.float32))
    return source, target, weight


def _merged(xp: Any, source: Any, target: Any, weight: Any) -> Edges:
    """Equal edges become one, with the sum of their weights in float64."""
    key = target << 31 | source  # node ids are 32-bit
    distinct, back = xp.unique(key, return_inverse=True)
    total = xp.bincount(back.ravel(), weights=weight.astype(np.float64), minlength=len(distinct))
    return distinct & (1 << 31) - 1, distinct >> 31, total.astype(np.float32)


def coo_chunks(runtime: Runtime, blocks: list[Block], limit: int) -> Iterator[Edges]:
    """Every edge once, in pieces of at most ``limit``."""
    for block in blocks:
        if not len(block.tap):
            continue
        for edges in _Filler(runtime, block).pieces(limit):
            for k in range(0, len(edges[0]), limit):
                source, target, weight = (a[k : k + limit] for a in edges)
                yield source, target, weight


def coo(runtime: Runtime, blocks: list[Block]) -> Edges:
    """Every edge once: source int64, target int64, weight float32, block by block.

    Edges go straight to their place; only those of blocks in which several nonzeros may lead to one edge are
    merged before that.
    """
    held = [block for block in blocks if len(block.tap)]
    merged = {
        k: list(_Filler(runtime, block).pieces(MERGED)) for k, block in enumerate(held) if block.overlaps
    }
    sizes = [
        sum(len(part[0]) for part in merged[k]) if k in merged else int(block.pair_count[block.tap].sum())
        for k, block in enumerate(held)
    ]
    edges = _empty(runtime, sum(sizes))
    at = 0
    for k, (block, size) in enumerate(zip(held, sizes, strict=True)):
        if k in merged:
            for part in merged.pop(k):
                for whole, values in zip(edges, part, strict=True):
                    whole[at : at + len(values)] = values
                at += len(part[0])
        else:
            source, target, weight = (whole[at : at + size] for whole in edges)
            _Filler(runtime, block).fill(0, len(block.tap), (source, target, weight))
            at += size
    return edges
