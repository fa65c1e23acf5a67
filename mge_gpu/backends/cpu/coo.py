"""Edges written down block by block: nonzero by nonzero, along runs of positions.

Where several nonzeros of a block can meet in one edge they share its target and source channel: the
pairs between two channels, a cell, are merged together, and no edge reaches beyond its cell.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.jit import jit, jit_in_place
from mge_gpu.backends.cpu.threads import call, evenly, num_threads, run

Edges = tuple[np.ndarray, np.ndarray, np.ndarray]

SCRATCH = 1 << 20
"""Pairs that are merged at a time while all edges are written down (about 100 bytes each)."""

SERIAL = 1 << 15
"""Edges that are not worth spreading over threads."""


@jit_in_place
def write_edges(
    target_channel: np.ndarray,
    source_channel: np.ndarray,
    tap: np.ndarray,
    weight: np.ndarray,
    start: np.ndarray,
    run_ptr: np.ndarray,
    runs: np.ndarray,
    target_offset: int,
    source_offset: int,
    target_stride: int,
    source_stride: int,
    first: int,
    source: np.ndarray,
    target: np.ndarray,
    value: np.ndarray,
) -> None:
    """Write edges from number ``first`` on until the arrays are full. Nonzero k begins at start[k]."""
    size = len(source)
    if not size:
        return
    k = np.searchsorted(start, first, side="right") - 1
    skip = first - start[k]
    at = 0
    while True:
        t0 = target_offset + np.int64(target_channel[k]) * target_stride
        s0 = source_offset + np.int64(source_channel[k]) * source_stride
        w = weight[k]
        for r in range(run_ptr[tap[k]], run_ptr[tap[k] + 1]):
            t, s, n, dt, ds = runs[r, 0] + t0, runs[r, 1] + s0, runs[r, 2], runs[r, 3], runs[r, 4]
            if skip:
                begin = min(skip, n)
                skip -= begin
                t, s, n = t + begin * dt, s + begin * ds, n - begin
            n = min(n, size - at)
            a, b, c = source[at : at + n], target[at : at + n], value[at : at + n]
            for j in range(n):  # slices spare the loop the check for negative indices
                a[j] = s + j * ds
            for j in range(n):
                b[j] = t + j * dt
            for j in range(n):
                c[j] = w
            at += n
            if at == size:
                return
        k += 1


@jit
def add_up(source: np.ndarray, target: np.ndarray, value: np.ndarray) -> int:
    """Sort edges by (target, source) in place and add up those that are equal; returns how many remain.

    Equal edges are added in the order given, in float64.
    """
    bits, low = 31, (1 << 31) - 1  # node ids are 32-bit
    n = len(source)
    key = np.empty(n, np.int64)
    for j in range(n):
        key[j] = np.int64(target[j]) << bits | source[j]
    order = np.argsort(key, kind="mergesort")
    weight = value.copy()
    last, total = np.int64(-1), 0.0
    k = -1
    for j in order:
        if key[j] != last:
            if k >= 0:
                value[k] = total
            k += 1
            last, total = key[j], 0.0
            target[k], source[k] = last >> bits, last & low
        total += weight[j]
    if k >= 0:
        value[k] = total
    return k + 1


def empty(size: int, ids: Any = np.int64, floats: Any = np.float32) -> Edges:
    """Arrays for edges: source and target of type ``ids``, weight of type ``floats``."""
    return np.empty(size, ids), np.empty(size, ids), np.empty(size, floats)


def count_pairs(block: Block) -> int:
    """(nonzero, position pair)s of a block: its edges, where no two nonzeros meet."""
    return int(block.pair_count[block.tap].sum())


def _starts(block: Block) -> np.ndarray:
    """First pair of each nonzero, and the number of pairs: (nonzeros + 1,) int64."""
    return np.concatenate([[0], np.cumsum(block.pair_count[block.tap])]).astype(np.int64)


def _writer(block: Block, floats: Any = np.float32) -> tuple[np.ndarray, Callable[[int, Edges], None]]:
    """Where each nonzero starts, and a function that writes from a given pair on; weights are ``floats``."""
    start = _starts(block)
    weight = _bits(block.weight.astype(floats, copy=False))

    def write(first: int, out: Edges) -> None:
        source, target, value = out
        write_edges(
            block.target_channel,
            block.source_channel,
            block.tap,
            weight,
            start,
            block.run_ptr,
            block.runs,
            block.target_offset,
            block.source_offset,
            block.target_channel_stride,
            block.source_channel_stride,
            first,
            source,
            target,
            _bits(value),
        )

    return start, write


def _bits(weight: np.ndarray) -> np.ndarray:
    """float16 as numbers that compiled code can copy."""
    return weight.view(np.uint16) if weight.dtype == np.float16 else weight


def fill(write: Callable[[int, Edges], None], first: int, out: Edges) -> None:
    """Write edges from ``first`` on into arrays, on all cores."""
    size = len(out[0])
    parts = 4 * num_threads() if size > SERIAL else 1
    cuts = evenly(size, parts)

    def task(k: int) -> None:
        write(first + int(cuts[k]), _piece(out, cuts[k], cuts[k + 1]))

    run(task, parts)


def _piece(edges: Edges, first: int, last: int) -> Edges:
    source, target, value = (a[first:last] for a in edges)
    return source, target, value


def merged(block: Block, limit: int, ids: Any = np.int64, floats: Any = np.float32) -> Iterator[Edges]:
    """The edges of a block whose nonzeros meet, in pieces of at most ``limit`` pairs or of one cell."""
    order = call(lambda: np.lexsort((block.source_channel, block.target_channel)))
    columns = ("target_channel", "source_channel", "tap", "weight")
    changes: dict[str, Any] = {name: getattr(block, name)[order] for name in columns}
    block = block._replace(**changes)
    start, write = _writer(block)
    cell = np.diff(block.target_channel) | np.diff(block.source_channel)
    bounds = start[np.concatenate([[0], np.flatnonzero(cell) + 1, [len(block.tap)]])]

    threads = num_threads()
    cuts = _cuts(bounds, max(1, limit // threads))

    def task(first: int, k: int) -> Edges:
        a, b = cuts[first + k : first + k + 2]
        out = empty(b - a, ids)
        write(a, out)
        source, target, value = _piece(out, 0, add_up(*out))
        with np.errstate(over="ignore"):  # infinity says it
            return source, target, value.astype(floats, copy=False)

    for first in range(0, len(cuts) - 1, threads):
        yield from run(partial(task, first), min(threads, len(cuts) - 1 - first))


def _cuts(bounds: np.ndarray, limit: int) -> list[int]:
    """Some of the ascending ``bounds``, the first and last among them, at most ``limit`` apart if possible.

    >>> _cuts(np.array([0, 2, 4, 9, 10]), 5)
    [0, 4, 9, 10]
    """
    cuts, at = [int(bounds[0])], 0
    while at < len(bounds) - 1:
        at = max(at + 1, int(np.searchsorted(bounds, bounds[at] + limit, side="right")) - 1)
        cuts.append(int(bounds[at]))
    return cuts


def coo(blocks: list[Block], ids: Any = np.int64, floats: Any = np.float32) -> Edges:
    """All edges of all blocks; only blocks whose nonzeros can meet are merged."""
    plain = [b for b in blocks if not b.overlaps]
    extra = [e for b in blocks if b.overlaps for e in merged(b, SCRATCH, ids, floats)]
    sizes = [count_pairs(b) for b in plain]
    rest = sum(len(e[0]) for e in extra)
    out = empty(sum(sizes) + rest, ids, floats)
    at = sum(sizes)
    extra.reverse()
    while extra:  # memory is given back piece by piece, before that of the plain blocks is touched
        edges = extra.pop()
        for whole, part in zip(out, edges, strict=True):
            whole[at : at + len(part)] = part
        at += len(edges[0])
    at = 0
    for block, size in zip(plain, sizes, strict=True):
        fill(_writer(block, floats)[1], 0, _piece(out, at, at + size))
        at += size
    return out


def coo_chunks(
    blocks: list[Block], limit: int, ids: Any = np.int64, floats: Any = np.float32
) -> Iterator[Edges]:
    """The edges of `coo` in pieces of at most ``limit``, each edge once.

    Memory is O(limit + the pairs between two channels of a block whose nonzeros meet).
    """
    total = sum(count_pairs(b) for b in blocks if not b.overlaps)
    out, at = empty(min(limit, total), ids, floats), 0
    for block in (b for b in blocks if not b.overlaps):
        start, write = _writer(block, floats)
        first, size = 0, int(start[-1])
        while first < size:
            last = min(size, first + len(out[0]) - at)
            fill(write, first, _piece(out, at, at + last - first))
            at += last - first
            first = last
            if at == len(out[0]):
                yield out
                total -= at
                out, at = empty(min(limit, total), ids, floats), 0
    for block in (b for b in blocks if b.overlaps):
        for edges in merged(block, limit, ids, floats):
            for k in range(0, len(edges[0]), limit):
                yield _piece(edges, k, k + limit)
