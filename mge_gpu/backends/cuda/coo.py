"""Edges written down block by block on the device."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda.resident import resident_block
from mge_gpu.backends.cuda.runtime import Runtime

Edges = tuple[Any, Any, Any]

MERGED = 1 << 26
"""Pairs that are merged at a time where several nonzeros may lead to one edge (about 60 bytes each)."""


def pieces(runtime: Runtime, block: Block, limit: int) -> Iterator[Edges]:
    """The edges of a block in pieces of at most ``limit`` pairs, or of the nonzeros of one edge."""
    xp = runtime.xp
    if not len(block.tap):
        return
    if block.overlaps:  # what may meet comes together: by target channel and source channel
        order = np.lexsort((block.source_channel, block.target_channel))
        columns = ("target_channel", "source_channel", "tap", "weight")
        fields: dict[str, Any] = {name: getattr(block, name)[order] for name in columns}
        block = block._replace(**fields)
    on_device = resident_block(runtime, block)
    start = np.concatenate([[0], np.cumsum(block.pair_count[block.tap])]).astype(np.int64)
    starts = xp.asarray(start)
    may_cut = np.arange(len(start))
    if block.overlaps:
        cell = np.diff(block.target_channel) | np.diff(block.source_channel)
        may_cut = np.concatenate([[0], np.flatnonzero(cell) + 1, [len(block.tap)]])
    at = 0
    while at < len(may_cut) - 1:
        first = int(may_cut[at])
        at = max(at + 1, int(np.searchsorted(start[may_cut], start[first] + limit, side="right")) - 1)
        last = int(may_cut[at])
        size = int(start[last] - start[first])
        edges = xp.empty(size, np.int64), xp.empty(size, np.int64), xp.empty(size, np.float32)
        count = last - first
        runtime.launch(
            "coo", "fill", count, on_device.table, np.int64(first), np.int64(count), starts,
            np.int64(start[first]), *edges,
        )  # fmt: skip
        yield _merged(xp, *edges) if block.overlaps else edges


def _merged(xp: Any, source: Any, target: Any, weight: Any) -> Edges:
    """Equal edges become one, with the sum of their weights in float64."""
    key = target << 31 | source  # node ids are 32-bit
    distinct, back = xp.unique(key, return_inverse=True)
    total = xp.bincount(back.ravel(), weights=weight.astype(np.float64), minlength=len(distinct))
    return distinct & (1 << 31) - 1, distinct >> 31, total.astype(np.float32)


def coo_chunks(runtime: Runtime, blocks: list[Block], limit: int) -> Iterator[Edges]:
    """Every edge once, in pieces of at most ``limit``."""
    for block in blocks:
        for edges in pieces(runtime, block, limit):
            for k in range(0, len(edges[0]), limit):
                source, target, weight = (a[k : k + limit] for a in edges)
                yield source, target, weight


def coo(runtime: Runtime, blocks: list[Block]) -> Edges:
    """Every edge once: source int64, target int64, weight float32, block by block."""
    xp = runtime.xp
    found = [e for b in blocks for e in pieces(runtime, b, MERGED if b.overlaps else 1 << 62)]
    dtypes = (np.int64, np.int64, np.float32)
    source, target, weight = (
        xp.concatenate([xp.zeros(0, dtype), *(e[k] for e in found)]) for k, dtype in enumerate(dtypes)
    )
    return source, target, weight
