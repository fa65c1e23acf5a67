"""Edges written down block by block: nonzero by nonzero, along runs of positions."""

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.compress import jit
from mge_gpu.backends.cpu.threads import balanced, num_threads, run


@jit
def write_edges(
    target_channel: np.ndarray,
    source_channel: np.ndarray,
    tap: np.ndarray,
    weight: np.ndarray,
    first: int,
    last: int,
    run_ptr: np.ndarray,
    runs: np.ndarray,
    target_offset: int,
    source_offset: int,
    target_stride: int,
    source_stride: int,
    at: int,
    source: np.ndarray,
    target: np.ndarray,
    value: np.ndarray,
) -> None:
    """Write the edges of nonzeros first..last from index ``at``."""
    for k in range(first, last):
        t0 = target_offset + np.int64(target_channel[k]) * target_stride
        s0 = source_offset + np.int64(source_channel[k]) * source_stride
        w = weight[k]
        for r in range(run_ptr[tap[k]], run_ptr[tap[k] + 1]):
            t, s, n, dt, ds = runs[r, 0] + t0, runs[r, 1] + s0, runs[r, 2], runs[r, 3], runs[r, 4]
            a, b, c = source[at : at + n], target[at : at + n], value[at : at + n]
            for j in range(n):  # slices spare the loop the check for negative indices
                a[j] = s + j * ds
            for j in range(n):
                b[j] = t + j * dt
            for j in range(n):
                c[j] = w
            at += n


def block_coo(block: Block, source: np.ndarray, target: np.ndarray, value: np.ndarray) -> None:
    """Fill the three arrays, whose length is the block's number of (nonzero, position pair)s."""
    count = block.pair_count[block.tap]
    cuts = balanced(count, 4 * num_threads() if count.sum() > 1 << 16 else 1)
    start = np.concatenate([[0], np.cumsum(count)])[cuts]

    def task(k: int) -> None:
        write_edges(
            block.target_channel,
            block.source_channel,
            block.tap,
            block.weight,
            cuts[k],
            cuts[k + 1],
            block.run_ptr,
            block.runs,
            block.target_offset,
            block.source_offset,
            block.target_channel_stride,
            block.source_channel_stride,
            start[k],
            source,
            target,
            value,
        )

    run(task, len(cuts) - 1)


def merged(
    source: np.ndarray, target: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add up the weights of edges that appear more than once."""
    order = np.lexsort((source, target))
    source, target, value = source[order], target[order], value[order]
    new = np.r_[True, (source[1:] != source[:-1]) | (target[1:] != target[:-1])][: len(source)]
    start = np.flatnonzero(new)
    total = np.add.reduceat(value.astype(np.float64), start) if len(start) else np.zeros(0)
    return source[start], target[start], total.astype(np.float32)


def coo(blocks: list[Block]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All edges of all blocks; only blocks whose nonzeros can meet are merged."""
    sizes = [int(b.pair_count[b.tap].sum()) for b in blocks]
    plain = [k for k, b in enumerate(blocks) if not b.overlaps]
    extra: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for k, b in enumerate(blocks):
        if b.overlaps:
            parts = np.empty(sizes[k], np.int64), np.empty(sizes[k], np.int64), np.empty(sizes[k], np.float32)
            block_coo(b, *parts)
            extra.append(merged(*parts))
    total = sum(sizes[k] for k in plain) + sum(len(e[0]) for e in extra)
    out = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.float32)
    at = 0
    for k in plain:
        block_coo(blocks[k], *(a[at : at + sizes[k]] for a in out))
        at += sizes[k]
    for e in extra:
        for k in range(3):
            out[k][at : at + len(e[0])] = e[k]
        at += len(e[0])
    return out
